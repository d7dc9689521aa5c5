use super::xts::UNIT_BYTES;
use super::*;

fn counting(from: u8) -> impl FnMut(&mut [u8]) {
    let mut next = from;
    move |bytes| {
        bytes.fill(next);
        bytes[0] ^= 0xff;
        next += 1;
    }
}

fn key(byte: u8) -> WrappingKey {
    WrappingKey::new(&[byte; 32])
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    let pair = |two: &[char]| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// Key 1 and key 2 of IEEE 1619's vectors 10 to 14.
fn ieee_key() -> [u8; MEDIA_KEY_BYTES] {
    let text = "2718281828459045235360287471352662497757247093699959574966967627\
                3141592653589793238462643383279502884197169399375105820974944592";
    hex(text).try_into().unwrap()
}

/// IEEE 1619-2007, annex B, vector 10: XTS-AES-256 applied for a data unit of 512 bytes.
const VECTOR_10: &str = "
    1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b
    5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd
    5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0
    c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca
    2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0
    b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f
    93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec
    583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a
    84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1
    505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae
    9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29
    a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac
    6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f
    645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385
    1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa
    773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";

#[test]
fn the_standards_own_vector_is_met_both_ways() {
    let xts = Xts::new(&ieee_key());
    let plain: Vec<u8> = (0..=255).cycle().take(UNIT_BYTES).collect();
    let mut unit = plain.clone();
    xts.encrypt(&mut unit, 0xff);
    assert_eq!(unit, hex(VECTOR_10));
    xts.decrypt(&mut unit, 0xff);
    assert_eq!(unit, plain);
}

/// Batches of tweaks, and the end of one, must not show.
#[test]
fn units_are_encrypted_alike_alone_and_together() {
    let xts = Xts::new(&ieee_key());
    for units in [1, 7, 8, 9, 33] {
        let plain: Vec<u8> =
            (0..units * UNIT_BYTES).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect();
        let mut together = plain.clone();
        xts.encrypt(&mut together, u64::from(u32::MAX));
        let mut alone = plain.clone();
        for (number, unit) in alone.chunks_mut(UNIT_BYTES).enumerate() {
            xts.encrypt(unit, u64::from(u32::MAX) + number as u64);
        }
        assert_eq!(together, alone, "{units} units");
        xts.decrypt(&mut together, u64::from(u32::MAX));
        assert_eq!(together, plain, "{units} units");
    }
}

/// The first block of a unit by hand: C = E1(P ^ T) ^ T, T = E2 of the number in 128 bits.
#[test]
fn the_tweak_is_the_whole_number_little_endian_under_the_second_key() {
    use aes::Aes256;
    use aes::cipher::{BlockCipherEncrypt, KeyInit};
    let key = ieee_key();
    let [data, tweak] = [&key[..32], &key[32..]].map(|half| Aes256::new_from_slice(half).unwrap());
    for number in [0x0123_4567_89ab_cdef_u64, 1 << 32, u64::MAX] {
        let mut wide = [0; 16];
        wide[..8].copy_from_slice(&number.to_le_bytes());
        let mut mask = aes::Block::from(wide);
        tweak.encrypt_block(&mut mask);
        let mut block = mask; // of zeros
        data.encrypt_block(&mut block);
        let expected: Vec<u8> = block.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
        let mut unit = [0; UNIT_BYTES];
        Xts::new(&key).encrypt(&mut unit, number);
        assert_eq!(unit[..16], expected, "{number:#x}");
    }
}

/// RFC 3394 4.6: 256 bits of key data under a 256-bit key.
#[test]
fn keys_are_wrapped_as_rfc_3394_says() {
    use aes_kw::KwAes256;
    use aes_kw::cipher::KeyInit;
    let under = hex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F");
    let data = hex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F");
    let mut wrapped = [0; 40];
    KwAes256::new_from_slice(&under).unwrap().wrap_key(&data, &mut wrapped).unwrap();
    let expected = "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43B\
                    FB988B9B7A02DD21";
    assert_eq!(wrapped.to_vec(), hex(expected));
}

fn sealed(cipher: &Cipher) -> Vec<u8> {
    let mut unit = vec![0; UNIT_BYTES];
    cipher.keys().encrypt(&mut unit, 5);
    unit
}

#[test]
fn a_header_opens_with_its_own_key_alone() {
    let (cipher, slot) = Cipher::fresh(key(1), &mut counting(7));
    let zeros = [0; SLOT_BYTES];
    let (again, stale) = Cipher::open(key(1), [&slot, &zeros]).unwrap();
    assert_eq!((sealed(&again), stale), (sealed(&cipher), None));
    assert_eq!(Cipher::open(key(2), [&slot, &zeros]).unwrap_err(), Refusal::WrongKey);
    assert_eq!(Cipher::open(key(1), [&zeros, &zeros]).unwrap_err(), Refusal::NoHeader);
    let used = 4 + 1 + 8 + 72 + 4;
    for bit in 0..used * 8 {
        let mut bad = slot.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Cipher::open(key(1), [&bad, &zeros]).unwrap_err(), Refusal::NoHeader, "{bit}");
    }
}

/// Every write and wipe of a replacement, whole, torn or not there: the old key or the new.
#[test]
fn a_replacement_that_is_cut_off_leaves_the_old_key_or_the_new() {
    let mut random = counting(7);
    let (cipher, old) = Cipher::fresh(key(1), &mut random);
    let before = sealed(&cipher);
    let next = cipher.successor(&mut random);
    assert_eq!(next.places(), (slot_offset(1), slot_offset(0)));
    let zeros = vec![0; SLOT_BYTES];
    let open = |even: &[u8], odd: &[u8]| {
        let (cipher, stale) = Cipher::open(key(1), [even, odd]).unwrap();
        (sealed(&cipher), stale)
    };
    let torn = |from: &[u8], to: &[u8], at: usize| [&from[..at], &to[at..]].concat();
    let new = next.slot.clone();
    cipher.unsettle();
    assert!(!cipher.is_settled());
    cipher.install(&next);
    let after = sealed(&cipher);
    assert!(cipher.is_settled() && before != after);
    for at in 0..128 {
        let (written, stale) = open(&old, &torn(&new, &zeros, at));
        let whole = at >= 89;
        assert_eq!(written, if whole { after.clone() } else { before.clone() }, "{at}");
        assert_eq!(stale, whole.then_some(slot_offset(0)), "{at}");
        assert_eq!(open(&torn(&zeros, &old, at), &new).0, after, "{at}");
    }
    assert_eq!(open(&zeros, &new), (after, None));
}

#[test]
fn nothing_shows_a_key() {
    let (cipher, _) =
        Cipher::fresh(WrappingKey::new(b"abcdefghijklmnopqrstuvwxyz012345"), &mut |b| {
            b.fill(b'k');
        });
    let next = cipher.successor(&mut |b| b.fill(b'q'));
    let shown = format!("{cipher:?}{:?}", next.keys);
    assert!(!shown.contains("97, 98") && !shown.contains("107") && !shown.contains("kkk"));
}
