//! CHAP, RFC 1994 and RFC 7143 12.1.3.
//!
//! The response is `digest(identifier, secret, challenge)`. The caller brings randomness.

use core::fmt;

use md5::Digest as _;
use subtle::ConstantTimeEq as _;

use crate::error::Violation;

/// The longest challenge we answer (12.1.3).
pub const CHALLENGE_BYTES_MAX: usize = 1024;
/// The shortest secret that is safe without IPsec, 96 bits (9.2.1).
pub const SECRET_BYTES_SAFE: usize = 12;
/// Length of the challenges we send: as long as the longest digest.
pub const CHALLENGE_BYTES: usize = 32;

/// The digest of a CHAP exchange, by its number in CHAP_A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// 5, RFC 1994.
    Md5,
    /// 6.
    Sha1,
    /// 7.
    Sha256,
    /// 8.
    Sha3_256,
}

impl Algorithm {
    /// All of them, strongest first: the usual preference.
    pub const ALL: [Self; 4] = [Self::Sha3_256, Self::Sha256, Self::Sha1, Self::Md5];

    /// The number in CHAP_A.
    pub const fn number(self) -> u8 {
        match self {
            Self::Md5 => 5,
            Self::Sha1 => 6,
            Self::Sha256 => 7,
            Self::Sha3_256 => 8,
        }
    }

    /// The algorithm of a number in CHAP_A.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|a| u64::from(a.number()) == number)
    }

    /// The first of `ours` (most wanted first) that the peer's CHAP_A list also has.
    pub fn choose(ours: &[Self], list: &str) -> Option<Self> {
        let theirs: Vec<u64> = super::text::list(list).filter_map(super::text::number).collect();
        ours.iter().copied().find(|a| theirs.contains(&u64::from(a.number())))
    }

    /// A list for CHAP_A.
    pub fn list(algorithms: &[Self]) -> String {
        let numbers: Vec<String> = algorithms.iter().map(|a| a.number().to_string()).collect();
        numbers.join(",")
    }
}

/// A shared secret. It shows nothing of itself and is overwritten when dropped (as far as safe
/// code can: copies that the allocator moved are not chased).
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes over `secret`.
    pub const fn new(secret: Vec<u8>) -> Self {
        Self(secret)
    }

    /// True if shorter than [`SECRET_BYTES_SAFE`]; worth a warning to the operator.
    pub fn is_short(&self) -> bool {
        self.0.len() < SECRET_BYTES_SAFE
    }

    fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the overwriting from being seen as useless.
        core::hint::black_box(&self.0);
    }
}

/// A name with its secret: one side's proof of who it is.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// CHAP_N.
    pub name: String,
    /// What both sides know.
    pub secret: Secret,
}

/// What a peer must prove, and what we prove when asked.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Digests we take, most wanted first.
    pub algorithms: Vec<Algorithm>,
    /// Who may come in; any one of them.
    pub incoming: Vec<Credentials>,
    /// How we prove ourselves in mutual CHAP.
    pub outgoing: Option<Credentials>,
}

impl Policy {
    /// Checks what no exchange could make safe.
    ///
    /// # Errors
    /// If there is no algorithm or no incoming credential, or if one secret serves in both
    /// directions (9.2.1), which lets an attacker reflect challenges.
    pub fn check(&self) -> Result<(), Violation> {
        const SECTION: &str = "RFC 7143 9.2.1";
        if self.algorithms.is_empty() || self.incoming.is_empty() {
            return Err(Violation::new("CHAP", "no algorithm or no credential is set", SECTION));
        }
        match &self.outgoing {
            Some(out) if self.incoming.iter().any(|c| c.secret.same_as(&out.secret)) => {
                Err(Violation::new("one CHAP secret for both directions", "reflection", SECTION))
            }
            _ => Ok(()),
        }
    }

    /// True if `name` is known and `response` proves its secret for `challenge`.
    pub fn proves(&self, challenge: &Challenge, name: &str, response: &[u8]) -> bool {
        // Every credential is tried, so time tells nothing about which name is known.
        let mut proven = subtle::Choice::from(0);
        for credentials in &self.incoming {
            let known = credentials.name.as_bytes().ct_eq(name.as_bytes());
            proven |= known & challenge.matches(&credentials.secret, response);
        }
        proven.into()
    }
}

/// A challenge that we sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The digest agreed on.
    pub algorithm: Algorithm,
    /// CHAP_I.
    pub identifier: u8,
    /// CHAP_C.
    pub bytes: [u8; CHALLENGE_BYTES],
}

impl Challenge {
    /// A fresh challenge from the caller's random bytes.
    pub fn draw(algorithm: Algorithm, random: &mut dyn FnMut(&mut [u8])) -> Self {
        let (mut identifier, mut bytes) = ([0], [0; CHALLENGE_BYTES]);
        random(&mut identifier);
        random(&mut bytes);
        Self { algorithm, identifier: identifier[0], bytes }
    }

    /// Compares in constant time.
    pub fn matches(&self, secret: &Secret, response: &[u8]) -> subtle::Choice {
        respond(self.algorithm, self.identifier, secret, &self.bytes).ct_eq(response)
    }

    /// Our answer to the peer's challenge in mutual CHAP.
    ///
    /// # Errors
    /// If it is empty, longer than [`CHALLENGE_BYTES_MAX`], or our own sent back.
    pub fn answer(
        &self,
        identifier: u8,
        challenge: &[u8],
        secret: &Secret,
    ) -> Result<Vec<u8>, Violation> {
        if challenge.is_empty() || challenge.len() > CHALLENGE_BYTES_MAX {
            return Err(Violation::new(
                "a CHAP challenge",
                "not 1 to 1024 bytes long",
                "RFC 7143 12.1.3",
            ));
        }
        if challenge == self.bytes {
            return Err(Violation::new("our own CHAP challenge", "reflection", "RFC 7143 9.2.1"));
        }
        Ok(respond(self.algorithm, identifier, secret, challenge))
    }
}

/// The response to a challenge, RFC 1994 4.1.
pub fn respond(algorithm: Algorithm, identifier: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
    macro_rules! digest {
        ($digest:ty) => {
            <$digest>::new()
                .chain_update([identifier])
                .chain_update(&secret.0)
                .chain_update(challenge)
                .finalize()
                .to_vec()
        };
    }
    match algorithm {
        Algorithm::Md5 => digest!(md5::Md5),
        Algorithm::Sha1 => digest!(sha1::Sha1),
        Algorithm::Sha256 => digest!(sha2::Sha256),
        Algorithm::Sha3_256 => digest!(sha3::Sha3_256),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    fn credentials(name: &str, text: &str) -> Credentials {
        Credentials { name: name.into(), secret: secret(text) }
    }

    /// identifier `a`, secret `b`, challenge `c`: the digests of "abc" that every standard lists.
    #[test]
    fn responses_are_the_published_digests_of_abc() {
        for (algorithm, start) in [
            (Algorithm::Md5, "0x900150983cd24fb0d6963f7d28e17f72"),
            (Algorithm::Sha1, "0xa9993e364706816aba3e25717850c26c9cd0d89d"),
            (Algorithm::Sha256, "0xba7816bf8f01cfea414140de5dae2223"),
            (Algorithm::Sha3_256, "0x3a985da74fe225b2045c172d6bd390bd"),
        ] {
            let response = respond(algorithm, b'a', &secret("b"), b"c");
            let text = super::super::text::binary_text(&response);
            assert!(text.starts_with(start), "{algorithm:?} {text}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_registry() {
        assert_eq!(Algorithm::ALL.map(Algorithm::number), [8, 7, 6, 5]);
        assert_eq!(Algorithm::from_number(4), None);
        assert_eq!(Algorithm::choose(&Algorithm::ALL, "5,7"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::choose(&[Algorithm::Md5], "8,7,6,5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::choose(&[Algorithm::Md5], "8,,x"), None);
    }

    #[test]
    fn only_the_right_name_and_secret_prove() {
        let policy = Policy {
            algorithms: vec![Algorithm::Md5],
            incoming: vec![credentials("dom0", "twelve bytes"), credentials("dom1", "other")],
            outgoing: None,
        };
        let challenge = Challenge::draw(Algorithm::Md5, &mut |bytes| bytes.fill(7));
        let right = respond(Algorithm::Md5, 7, &secret("twelve bytes"), &[7; 32]);
        assert!(policy.proves(&challenge, "dom0", &right));
        assert!(!policy.proves(&challenge, "dom1", &right));
        assert!(!policy.proves(&challenge, "dom0", &right[..15]));
        assert!(!policy.proves(&challenge, "dom0", &[]));
    }

    #[test]
    fn reflection_is_refused() {
        let challenge = Challenge::draw(Algorithm::Md5, &mut |bytes| bytes.fill(7));
        assert!(challenge.answer(1, &[7; 32], &secret("s")).is_err());
        assert!(challenge.answer(1, &[], &secret("s")).is_err());
        assert!(challenge.answer(1, &[1; 1025], &secret("s")).is_err());
        assert!(challenge.answer(1, &[1; 1024], &secret("s")).is_ok());
        let mut policy = Policy {
            algorithms: vec![Algorithm::Md5],
            incoming: vec![credentials("in", "same")],
            outgoing: Some(credentials("out", "same")),
        };
        assert!(policy.check().is_err());
        policy.outgoing = Some(credentials("out", "different"));
        assert!(policy.check().is_ok());
    }

    #[test]
    fn secrets_do_not_show() {
        assert!(!format!("{:?}", credentials("dom0", "hunter2")).contains("hunter2"));
        assert!(secret("short").is_short());
    }
}
