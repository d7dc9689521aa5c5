//! What one side proves who it is with.

use corbel_daemon::config::Secret;
use corbel_proto::iscsi::chap;

/// A name and its secret: one side's proof of who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// CHAP_N, 1 to 255 bytes.
    pub user: String,
    /// What CHAP_R is made from.
    pub secret: Secret,
}

impl Credentials {
    /// The same for the protocol machine.
    pub fn to_chap(&self) -> chap::Credentials {
        let secret = chap::Secret::new(self.secret.bytes().to_vec());
        chap::Credentials { name: self.user.clone(), secret }
    }
}
