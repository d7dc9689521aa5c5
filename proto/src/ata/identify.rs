//! IDENTIFY DEVICE: 256 little-endian words (ACS-3 section 7.12.7).

use crate::error::Malformed;

/// Bytes of the block.
pub const IDENTIFY_BYTES: usize = 512;

const LBA28_SECTORS_MAX: u64 = 0x0fff_ffff;
const LBA48_SECTORS_MAX: u64 = 0xffff_ffff_ffff;
const HEADS: u16 = 16;
const SECTORS_PER_TRACK: u16 = 63;
const CYLINDERS_MAX: u64 = 16_383;

/// What the block says, in the words that clients look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identify {
    /// Words 10-19: printable ASCII, 20 characters at most.
    pub serial: String,
    /// Words 23-26: printable ASCII, 8 characters at most.
    pub firmware: String,
    /// Words 27-46: printable ASCII, 40 characters at most.
    pub model: String,
    /// Words 108-111: World Wide Name.
    pub naa: u64,
    /// Words 60-61 and 100-103: size in sectors of 512 bytes.
    pub sectors: u64,
    /// Word 106: log2 of the 512-byte sectors in a physical one.
    pub physical_exponent: u8,
    /// Words 82, 85: acknowledged writes may sit in a volatile cache until a flush.
    pub write_cache: bool,
    /// Words 105, 169: TRIM works, with this many 512-byte blocks of ranges in one command at
    /// most; 0 is no TRIM.
    pub trim_blocks: u16,
    /// Word 69: trimmed sectors read as zeros.
    pub trim_zeroes: bool,
    /// Word 217: the medium rotates.
    pub rotational: bool,
}

impl Identify {
    /// Writes the block, its checksum included.
    pub fn emit(&self) -> [u8; IDENTIFY_BYTES] {
        let mut words = [0u16; 256];
        self.geometry(&mut words);
        text(&mut words[10..20], &self.serial);
        text(&mut words[23..27], &self.firmware);
        text(&mut words[27..47], &self.model);
        self.features(&mut words);
        self.alignment_and_trim(&mut words);
        words[108..112].copy_from_slice(&high_word_first(self.naa));
        words[217] = u16::from(!self.rotational);
        words[222] = 0x1000; // serial transport, version not told
        let mut bytes = [0; IDENTIFY_BYTES];
        for (pair, word) in bytes.chunks_exact_mut(2).zip(words) {
            pair.copy_from_slice(&word.to_le_bytes());
        }
        bytes[510] = 0xa5;
        bytes[511] = checksum(&bytes[..511]).wrapping_neg();
        bytes
    }

    fn geometry(&self, words: &mut [u16; 256]) {
        words[0] = 0x0040; // ATA, not removable
        let track = u64::from(HEADS) * u64::from(SECTORS_PER_TRACK);
        let cylinders = (self.sectors / track).min(CYLINDERS_MAX);
        let chs = cylinders * track;
        let cylinders = u16::try_from(cylinders).expect("limited to 16383");
        (words[1], words[3], words[6]) = (cylinders, HEADS, SECTORS_PER_TRACK);
        words[53] = 0x0007; // words 54-58, 64-70 and 88 are valid
        (words[54], words[55], words[56]) = (cylinders, HEADS, SECTORS_PER_TRACK);
        words[57..59].copy_from_slice(&low_words_first::<2>(chs));
        let short = self.sectors.min(LBA28_SECTORS_MAX);
        words[60..62].copy_from_slice(&low_words_first::<2>(short));
        let long = self.sectors.min(LBA48_SECTORS_MAX);
        words[100..104].copy_from_slice(&low_words_first::<4>(long));
    }

    fn features(&self, words: &mut [u16; 256]) {
        let cache = u16::from(self.write_cache) << 5;
        words[47] = 0x8000; // no READ MULTIPLE
        words[49] = 0x0300; // LBA, DMA
        words[50] = 0x4000;
        words[63] = 0x0007; // multiword DMA 0-2
        words[64] = 0x0003; // PIO 3 and 4
        words[65..69].fill(120); // cycle times, ns
        words[80] = 0x03f0; // ATA/ATAPI-4 to ACS-2
        words[82] = 0x0009 | cache; // SMART, power management
        words[83] = 0x7400; // FLUSH CACHE EXT, FLUSH CACHE, LBA48
        words[84] = 0x4100; // World Wide Name
        words[85] = 0x0009 | cache;
        words[86] = 0xb400; // as 83; words 119-120 are valid
        words[87] = 0x4100;
        words[88] = 0x003f; // Ultra DMA 0-5
        words[119] = 0x4000;
        words[120] = 0x4000;
    }

    fn alignment_and_trim(&self, words: &mut [u16; 256]) {
        words[106] = 0x4000;
        if self.physical_exponent > 0 {
            words[106] |= 0x2000 | u16::from(self.physical_exponent & 0x0f);
        }
        words[209] = 0x4000; // sector 0 starts a physical one
        if self.trim_blocks > 0 {
            words[69] = if self.trim_zeroes { 0x4020 } else { 0 };
            words[105] = self.trim_blocks;
            words[169] = 0x0001;
        }
    }

    /// Reads a block. The checksum is judged only if its signature is there: old servers have
    /// none. The size is taken from words 100-103 if LBA48 is supported, else from 60-61.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let wrong = |why| Malformed::new("IDENTIFY DEVICE data", why, "ACS-3 7.12.7");
        let bytes = bytes.get(..IDENTIFY_BYTES).ok_or_else(|| wrong("shorter than 512 bytes"))?;
        if bytes[510] == 0xa5 && checksum(bytes) != 0 {
            return Err(wrong("wrong checksum"));
        }
        let word = |i: usize| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
        let number =
            |i: usize, n: usize| (i..i + n).rev().fold(0, |v, i| v << 16 | u64::from(word(i)));
        let long = word(83) & 0xc400 == 0x4400;
        let physical = word(106);
        let naa = (108..112).fold(0, |v, i| v << 16 | u64::from(word(i)));
        Ok(Self {
            serial: untext(&bytes[20..40]),
            firmware: untext(&bytes[46..54]),
            model: untext(&bytes[54..94]),
            naa: if word(87) & 0xc100 == 0x4100 { naa } else { 0 },
            sectors: if long { number(100, 4) & LBA48_SECTORS_MAX } else { number(60, 2) },
            physical_exponent: if physical & 0xe000 == 0x6000 {
                physical.to_le_bytes()[0] & 0x0f
            } else {
                0
            },
            write_cache: word(85) & 0x20 != 0,
            trim_blocks: if word(169) & 1 == 1 { word(105).max(1) } else { 0 },
            trim_zeroes: word(169) & 1 == 1 && word(69) & 0x4020 == 0x4020,
            rotational: word(217) != 1,
        })
    }
}

/// The low words of `value`, lowest first, as sizes are written.
fn low_words_first<const N: usize>(value: u64) -> [u16; N] {
    let bytes = value.to_le_bytes();
    core::array::from_fn(|i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]))
}

/// The words of `value`, highest first, as the World Wide Name is written.
fn high_word_first(value: u64) -> [u16; 4] {
    let mut words = low_words_first::<4>(value);
    words.reverse();
    words
}

/// ATA strings hold the first character of each pair in the high byte, padded with spaces.
fn text(words: &mut [u16], text: &str) {
    let printable = |b: u8| if (0x20..0x7f).contains(&b) { b } else { b'?' };
    let mut letters = text.bytes().map(printable).chain(core::iter::repeat(b' '));
    for word in words {
        let (first, second) = (letters.next(), letters.next());
        *word = u16::from_be_bytes([first.unwrap_or(b' '), second.unwrap_or(b' ')]);
    }
}

fn untext(bytes: &[u8]) -> String {
    let letters = bytes.chunks_exact(2).flat_map(|pair| [pair[1], pair[0]]);
    let printable = letters.filter(|b| (0x20..0x7f).contains(b)).map(char::from);
    printable.collect::<String>().trim().to_owned()
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identify {
        Identify {
            serial: "3123456789abcdef".to_owned(),
            firmware: "0001".to_owned(),
            model: "CORBEL VOLUME".to_owned(),
            naa: 0x3123_4567_89ab_cdef,
            sectors: 0x1_2345_6789,
            physical_exponent: 3,
            write_cache: false,
            trim_blocks: 8,
            trim_zeroes: true,
            rotational: false,
        }
    }

    fn word(block: &[u8; 512], i: usize) -> u16 {
        u16::from_le_bytes([block[2 * i], block[2 * i + 1]])
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(Identify::parse(&sample().emit()).unwrap(), sample());
        let plain = Identify {
            physical_exponent: 0,
            write_cache: true,
            trim_blocks: 0,
            trim_zeroes: false,
            rotational: true,
            ..sample()
        };
        assert_eq!(Identify::parse(&plain.emit()).unwrap(), plain);
    }

    #[test]
    fn linux_finds_lba48_and_the_size() {
        let block = sample().emit();
        assert_ne!((word(&block, 83) | word(&block, 86)) & 1 << 10, 0);
        assert_eq!(block[200..208], [0x89, 0x67, 0x45, 0x23, 0x01, 0, 0, 0]);
        assert_eq!(block[120..124], [0xff, 0xff, 0xff, 0x0f], "LBA28 size is clamped");
        assert_eq!((word(&block, 54), word(&block, 55), word(&block, 56)), (16_383, 16, 63));
    }

    #[test]
    fn small_disks_have_the_same_size_everywhere() {
        let block = Identify { sectors: 2048, ..sample() }.emit();
        assert_eq!(block[200..208], [0, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(block[120..124], [0, 8, 0, 0]);
        assert_eq!(word(&block, 1), 2);
    }

    #[test]
    fn strings_are_byte_swapped_and_padded() {
        let block = sample().emit();
        assert_eq!(&block[54..68], b"OCBRLEV LOMU E");
        assert_eq!(&block[46..54], b"0010    ");
    }

    #[test]
    fn write_cache_is_told_as_it_is() {
        assert_eq!(word(&sample().emit(), 85) & 0x20, 0);
        let cached = Identify { write_cache: true, ..sample() }.emit();
        assert_eq!((word(&cached, 82) & 0x20, word(&cached, 85) & 0x20), (0x20, 0x20));
        assert_eq!(word(&cached, 86) & 0x3000, 0x3000, "FLUSH CACHE and EXT");
    }

    #[test]
    fn name_alignment_trim_and_checksum_stand_where_they_belong() {
        let block = sample().emit();
        assert_eq!(block[216..224], [0x23, 0x31, 0x67, 0x45, 0xab, 0x89, 0xef, 0xcd]);
        assert_eq!(word(&block, 106), 0x6003);
        assert_eq!((word(&block, 69), word(&block, 105), word(&block, 169)), (0x4020, 8, 1));
        assert_eq!(block[510], 0xa5);
        assert_eq!(checksum(&block), 0);
    }

    #[test]
    fn short_or_damaged_blocks_are_refused() {
        let mut block = sample().emit();
        assert!(Identify::parse(&block[..511]).is_err());
        block[100] ^= 1;
        assert!(Identify::parse(&block).is_err());
    }

    #[test]
    fn servers_without_lba48_are_understood() {
        let mut block = sample().emit();
        block[167] = 0x40;
        block[510] = 0;
        assert_eq!(Identify::parse(&block).unwrap().sectors, 0x0fff_ffff);
    }
}
