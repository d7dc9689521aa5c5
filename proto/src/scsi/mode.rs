//! Mode pages and their headers (SPC-4 7.5, SBC-3 6.4).

use super::sense::{Condition, Sense};

/// Caching mode page.
pub const CACHING: u8 = 0x08;
/// Control mode page.
pub const CONTROL: u8 = 0x0a;
/// Informational exceptions control mode page.
pub const INFORMATIONAL_EXCEPTIONS: u8 = 0x1c;
/// All pages.
pub const ALL_PAGES: u8 = 0x3f;

/// The mode parameters that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// WCE: acknowledged writes may still be volatile.
    pub write_cache: bool,
    /// D_SENSE: sense data in descriptor format.
    pub descriptor_sense: bool,
    /// SWP: refuse writes.
    pub software_write_protect: bool,
}

/// Pages hold this much after their two-byte header.
const CACHING_LEN: u8 = 0x12;
const CONTROL_LEN: u8 = 0x0a;
const EXCEPTIONS_LEN: u8 = 0x0a;

/// Emits `page` with the bits of `parameters` set, or `None` if there is no such page. For
/// changeable values (PC = 1), pass `changeable` and the bits that may change.
pub fn page(page: u8, parameters: &Parameters, changeable: bool) -> Option<Vec<u8>> {
    let len = page_len(page)?;
    let mut out = vec![0; usize::from(len) + 2];
    out[0] = page;
    out[1] = len;
    match page {
        CACHING => out[2] = u8::from(parameters.write_cache) << 2,
        CONTROL => {
            let fixed = if changeable { 0 } else { 1 };
            // TST: each nexus has a task set of its own.
            out[2] = fixed << 5 | u8::from(parameters.descriptor_sense) << 2;
            out[3] = fixed << 4; // QUEUE ALGORITHM MODIFIER: unrestricted reordering allowed
            out[4] = u8::from(parameters.software_write_protect) << 3;
            out[5] = fixed << 6; // TAS: who is aborted by another is answered TASK ABORTED
            if !changeable {
                out[8..10].copy_from_slice(&[0xff, 0xff]); // BUSY TIMEOUT PERIOD: unlimited
            }
        }
        _ => {}
    }
    Some(out)
}

/// Page codes in the order that "all pages" reports them.
pub const PAGES: [u8; 3] = [CACHING, CONTROL, INFORMATIONAL_EXCEPTIONS];

/// Pages with something to save.
pub const SAVABLE: [u8; 2] = [CACHING, CONTROL];

/// PS, in a page's first byte: it can be saved.
pub const PS: u8 = 0x80;

const fn page_len(page: u8) -> Option<u8> {
    match page {
        CACHING => Some(CACHING_LEN),
        CONTROL => Some(CONTROL_LEN),
        INFORMATIONAL_EXCEPTIONS => Some(EXCEPTIONS_LEN),
        _ => None,
    }
}

/// The block descriptor of direct-access devices (SBC-3 6.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDescriptor {
    /// Blocks of the unit.
    pub blocks: u64,
    /// Bytes in each.
    pub block_bytes: u32,
    /// The 16-byte form.
    pub long: bool,
}

impl BlockDescriptor {
    fn emit(&self) -> Vec<u8> {
        if self.long {
            let tail = [[0; 4], self.block_bytes.to_be_bytes()].concat();
            return [&self.blocks.to_be_bytes()[..], &tail].concat();
        }
        let blocks = u32::try_from(self.blocks).unwrap_or(u32::MAX);
        let [_, len @ ..] = self.block_bytes.to_be_bytes();
        [&blocks.to_be_bytes()[..], &[0], &len].concat()
    }
}

/// Everything MODE SENSE answers with: header, block descriptor, `pages`.
///
/// DPOFUA is set: DPO and FUA are accepted. A six-byte header cannot tell more than 255 bytes;
/// the pages here are far shorter.
pub fn sense_data(
    ten: bool,
    write_protected: bool,
    descriptor: Option<BlockDescriptor>,
    pages: &[u8],
) -> Vec<u8> {
    let descriptor_bytes = descriptor.map(|d| d.emit()).unwrap_or_default();
    let specific = u8::from(write_protected) << 7 | 0x10; // WP, DPOFUA
    let header = if ten { 8 } else { 4 };
    let total = header + descriptor_bytes.len() + pages.len();
    let mut out = Vec::with_capacity(total);
    let descriptor_len = u8::try_from(descriptor_bytes.len()).expect("0, 8 or 16");
    if ten {
        let len = u16::try_from(total - 2).expect("mode data is a few dozen bytes");
        out.extend_from_slice(&len.to_be_bytes());
        let long = u8::from(descriptor.is_some_and(|d| d.long));
        out.extend_from_slice(&[0, specific, long, 0, 0, descriptor_len]);
    } else {
        let len = u8::try_from(total - 1).expect("mode data is a few dozen bytes");
        out.extend_from_slice(&[len, 0, specific, descriptor_len]);
    }
    out.extend_from_slice(&descriptor_bytes);
    out.extend_from_slice(pages);
    out
}

/// What an initiator reads from MODE SENSE (6) data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// WP: the medium must not be written.
    pub write_protected: bool,
    /// DPOFUA: FUA is understood.
    pub fua: bool,
    /// WCE: acknowledged writes may still be volatile; `None` without a caching page.
    pub write_cache: Option<bool>,
}

/// Reads MODE SENSE (6) data, as far as it is whole; `None` without a header.
pub fn parse_sense6(bytes: &[u8]) -> Option<Told> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let mut pages = rest.get(usize::from(head[3])..).unwrap_or_default();
    let mut write_cache = None;
    while let &[code, len, ref tail @ ..] = pages {
        // SPF: a subpage has a longer header, and is none that is looked for here.
        let (header, len) = match code & 0x40 {
            0 => (0, usize::from(len)),
            _ => (
                2,
                usize::from(u16::from_be_bytes([
                    tail.first().copied().unwrap_or(0),
                    tail.get(1).copied().unwrap_or(0),
                ])),
            ),
        };
        let body = tail.get(header..).unwrap_or_default();
        if code & 0x7f == CACHING {
            write_cache = body.first().map(|byte| byte & 0x04 != 0);
        }
        pages = body.get(len..).unwrap_or_default();
    }
    Some(Told { write_protected: head[2] & 0x80 != 0, fua: head[2] & 0x10 != 0, write_cache })
}

/// Reads a MODE SELECT parameter list and answers with the parameters it wants.
///
/// Every bit that is not changeable must have its present value (SPC-4 6.9.2): setting one is
/// refused with a pointer, and then nothing changes. `descriptor` is the unit's real geometry,
/// which cannot be changed; zeros in its place mean "as it is". `fixed` are pages, as MODE SENSE
/// tells them, in which nothing is changeable.
pub fn parse_select(
    list: &[u8],
    ten: bool,
    current: &Parameters,
    changeable: &Parameters,
    descriptor: &BlockDescriptor,
    fixed: &[Vec<u8>],
) -> Result<Parameters, Sense> {
    let mut wanted = *current;
    if list.is_empty() {
        return Ok(wanted);
    }
    let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
    let header = if ten { 8 } else { 4 };
    let head = list.get(..header).ok_or_else(short)?;
    let (descriptor_len, long) = if ten {
        (usize::from(u16::from_be_bytes([head[6], head[7]])), head[4] & 1 != 0)
    } else {
        (usize::from(head[3]), false)
    };
    let geometry = list.get(header..header + descriptor_len).ok_or_else(short)?;
    let at = if ten { 6 } else { 3 };
    check_descriptor(geometry, BlockDescriptor { long, ..*descriptor }, at, header)?;
    let mut at = header + descriptor_len;
    while at < list.len() {
        at += match fixed.iter().find(|page| page.first() == Some(&(list[at] & !PS))) {
            Some(page) => same_page(list, at, page)?,
            None => select_page(list, at, current, changeable, &mut wanted)?,
        };
    }
    Ok(wanted)
}

/// A page that must stand at `at` as it is told. Answers with its length.
fn same_page(list: &[u8], at: usize, page: &[u8]) -> Result<usize, Sense> {
    let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
    let given = list.get(at..at + page.len()).ok_or_else(short)?;
    match given.iter().zip(page).skip(1).position(|(given, page)| given != page) {
        None => Ok(page.len()),
        Some(byte) => {
            let byte = u16::try_from(at + 1 + byte).unwrap_or(u16::MAX);
            Err(Sense::invalid_parameter(byte, None))
        }
    }
}

fn check_descriptor(
    given: &[u8],
    ours: BlockDescriptor,
    len_at: u16,
    at: usize,
) -> Result<(), Sense> {
    if given.is_empty() {
        return Ok(());
    }
    let ours = ours.emit();
    if given.len() != ours.len() {
        return Err(Sense::invalid_parameter(len_at, None));
    }
    let blocks = if given.len() == 16 { 8 } else { 4 };
    let (count, size) = given.split_at(blocks);
    let same_count = count == &ours[..blocks]
        || count.iter().all(|b| *b == 0)
        || count.iter().all(|b| *b == 0xff);
    // The byte before a short descriptor's length is reserved, formerly the density code.
    if !same_count || size[1..] != ours[blocks + 1..] {
        return Err(Sense::invalid_parameter(u16::try_from(at).unwrap_or(u16::MAX), None));
    }
    Ok(())
}

/// Reads the page at `at` and answers with its length.
fn select_page(
    list: &[u8],
    at: usize,
    current: &Parameters,
    changeable: &Parameters,
    wanted: &mut Parameters,
) -> Result<usize, Sense> {
    let point = |offset: usize| u16::try_from(at + offset).unwrap_or(u16::MAX);
    let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
    let &[code, len] = list[at..].first_chunk().ok_or_else(short)?;
    let code = code & 0x7f; // PS is reserved here; initiators send it back as they read it
    let now =
        page(code, current, false).ok_or_else(|| Sense::invalid_parameter(point(0), Some(6)))?;
    if len != now[1] {
        return Err(Sense::invalid_parameter(point(1), None));
    }
    let given = list.get(at..at + now.len()).ok_or_else(short)?;
    let mask = page(code, changeable, true).unwrap_or_default();
    for (i, ((given, now), mask)) in given.iter().zip(&now).zip(&mask).enumerate().skip(2) {
        let refused = (given ^ now) & !mask;
        if refused != 0 {
            let bit = u8::try_from(7 - refused.leading_zeros()).expect("a byte's bit");
            return Err(Sense::invalid_parameter(point(i), Some(bit)));
        }
    }
    match code {
        CACHING => wanted.write_cache = given[2] & 0x04 != 0,
        CONTROL => {
            wanted.descriptor_sense = given[2] & 0x04 != 0;
            wanted.software_write_protect = given[4] & 0x08 != 0;
        }
        _ => {}
    }
    Ok(now.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Parameters =
        Parameters { write_cache: true, descriptor_sense: false, software_write_protect: false };
    const MAY: Parameters =
        Parameters { write_cache: true, descriptor_sense: true, software_write_protect: true };
    const GEOMETRY: BlockDescriptor =
        BlockDescriptor { blocks: 1000, block_bytes: 4096, long: false };

    fn select(list: &[u8]) -> Result<Parameters, Sense> {
        parse_select(list, false, &NOW, &MAY, &GEOMETRY, &[])
    }

    /// MODE SENSE(6) data as an initiator sends it back: the data length is reserved there.
    fn echoed(page_code: u8) -> Vec<u8> {
        let page = page(page_code, &NOW, false).unwrap();
        let mut list = sense_data(false, false, Some(GEOMETRY), &page);
        list[0] = 0;
        list
    }

    #[test]
    fn header_tells_length_protection_and_geometry() {
        let data = sense_data(false, true, Some(GEOMETRY), &page(CACHING, &NOW, false).unwrap());
        #[rustfmt::skip]
        assert_eq!(data[..16], [
            31, 0x00, 0x90, 8,          // MODE DATA LENGTH, medium type, WP DPOFUA, descriptor
            0, 0, 0x03, 0xe8,           // blocks
            0, 0x00, 0x10, 0x00,        // block length
            0x08, 0x12, 0x04, 0x00,     // caching page, WCE
        ]);
        assert_eq!(data.len(), 32);
        let long = BlockDescriptor { long: true, ..GEOMETRY };
        let data = sense_data(true, false, Some(long), &[]);
        assert_eq!(data[..8], [0, 22, 0, 0x10, 1, 0, 0, 16]);
    }

    #[test]
    fn what_was_sensed_can_be_selected_back() {
        for code in PAGES {
            assert_eq!(select(&echoed(code)), Ok(NOW), "{code:#x}");
        }
        assert_eq!(select(&[]), Ok(NOW));
    }

    #[test]
    fn control_page_tells_of_task_sets_reordering_and_aborted_commands() {
        let told = page(CONTROL, &NOW, false).unwrap();
        assert_eq!(told[2..6], [0x20, 0x10, 0, 0x40]); // TST, QUEUE ALGORITHM MODIFIER, TAS
        let changeable = page(CONTROL, &MAY, true).unwrap();
        assert_eq!(changeable[2..6], [0x04, 0, 0x08, 0]);
    }

    #[test]
    fn changeable_bits_change_and_others_are_pointed_at() {
        let mut list = echoed(CACHING);
        list[14] = 0;
        assert!(!select(&list).unwrap().write_cache);
        list[14] = 0x05; // RCD
        assert_eq!(select(&list), Err(Sense::invalid_parameter(14, Some(0))));
        let fixed = Parameters { write_cache: false, ..MAY };
        list[14] = 0;
        let refused = parse_select(&list, false, &NOW, &fixed, &GEOMETRY, &[]);
        assert_eq!(refused, Err(Sense::invalid_parameter(14, Some(2))));
    }

    #[test]
    fn pages_in_which_nothing_changes_are_taken_as_they_were_told() {
        let fixed = [vec![0x5c, 2, 0, 2, 0x80, 7]];
        let select = |list: &[u8]| parse_select(list, false, &NOW, &MAY, &GEOMETRY, &fixed);
        let mut list = [&[0, 0, 0, 0, 0xdc][..], &fixed[0][1..]].concat();
        list.extend_from_slice(&echoed(CACHING)[12..]);
        list[12] = 0; // WCE
        assert!(!select(&list).unwrap().write_cache, "what follows is read");
        for byte in 5..10 {
            let mut other = list.clone();
            other[byte] ^= 1;
            let point = u16::try_from(byte).unwrap();
            assert_eq!(select(&other), Err(Sense::invalid_parameter(point, None)));
        }
        assert!(select(&list[..9]).is_err());
    }

    #[test]
    fn malformed_lists_are_refused() {
        let whole = echoed(CONTROL);
        for len in 1..whole.len() {
            // The header alone, and header with descriptor, are complete lists of no pages.
            assert_eq!(select(&whole[..len]).is_ok(), len == 12, "{len}");
        }
        let mut unknown = whole.clone();
        unknown[12] = 0x3e;
        assert_eq!(select(&unknown), Err(Sense::invalid_parameter(12, Some(6))));
        let mut geometry = whole.clone();
        geometry[10] = 2; // another block length
        assert_eq!(select(&geometry), Err(Sense::invalid_parameter(4, None)));
    }

    #[test]
    fn geometry_can_be_left_open_and_not_be_changed() {
        let whole = echoed(CONTROL);
        let with = |at: usize, bytes: &[u8]| {
            let mut list = whole.clone();
            list[at..at + bytes.len()].copy_from_slice(bytes);
            select(&list)
        };
        assert_eq!(with(4, &[0; 4]), Ok(NOW));
        assert_eq!(with(4, &[0xff; 4]), Ok(NOW));
        assert_eq!(with(4, &[0, 0, 0x03, 0xe7]), Err(Sense::invalid_parameter(4, None)));
        assert_eq!(with(9, &[1]), Err(Sense::invalid_parameter(4, None)), "block length");
        assert_eq!(with(3, &[16]), Err(Sense::invalid_parameter(3, None)), "a longer descriptor");
        assert_eq!(with(13, &[9]), Err(Sense::invalid_parameter(13, None)), "a shorter page");
    }

    #[test]
    fn long_descriptors_are_told_and_taken_where_longlba_says_so() {
        let long = BlockDescriptor { blocks: 1 << 40, long: true, ..GEOMETRY };
        let mut list = sense_data(true, false, Some(long), &page(CACHING, &NOW, false).unwrap());
        assert_eq!(list[8..24], [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
        list[..2].copy_from_slice(&[0, 0]);
        let ours = BlockDescriptor { long: false, ..long };
        let select = |list: &[u8]| parse_select(list, true, &NOW, &MAY, &ours, &[]);
        assert_eq!(select(&list), Ok(NOW));
        list[4] = 0; // LONGLBA
        assert_eq!(select(&list), Err(Sense::invalid_parameter(6, None)));
        // Too many blocks for a short one.
        assert_eq!(sense_data(false, false, Some(ours), &[])[4..8], [0xff; 4]);
    }

    #[test]
    fn initiators_read_the_caching_page_after_descriptors_and_other_pages() {
        let parameters = Parameters {
            write_cache: true,
            descriptor_sense: false,
            software_write_protect: false,
        };
        let pages: Vec<u8> = [CONTROL, CACHING]
            .into_iter()
            .filter_map(|p| page(p, &parameters, false))
            .flatten()
            .collect();
        let descriptor = BlockDescriptor { blocks: 9, block_bytes: 512, long: false };
        let data = sense_data(false, true, Some(descriptor), &pages);
        let told = Told { write_protected: true, fua: true, write_cache: Some(true) };
        assert_eq!(parse_sense6(&data), Some(told));
        assert_eq!(parse_sense6(&data[..4]).unwrap().write_cache, None);
        for len in 0..data.len() {
            assert_eq!(parse_sense6(&data[..len]).is_some(), len >= 4);
        }
    }
}
