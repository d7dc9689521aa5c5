//! I/O on a file in memory, within the call.

use rustix::io::Errno;

/// Bytes of one operation, whose length fits (`Slice`).
pub(super) fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("operations are below 4 GiB")
}

/// Calls `step` with what is done until `len` bytes are, or until it does nothing more.
pub(super) fn whole(
    len: usize,
    mut step: impl FnMut(usize) -> Result<usize, Errno>,
) -> Result<u32, i32> {
    let mut done = 0;
    while done < len {
        match step(done) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.raw_os_error()),
        }
    }
    Ok(count(done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_followed_by_the_next_until_nothing_comes() {
        let mut steps = [Ok(3), Err(Errno::INTR), Ok(4), Ok(0)].into_iter();
        let mut seen = Vec::new();
        let done = whole(10, |done| {
            seen.push(done);
            steps.next().expect("asked too often")
        });
        assert_eq!((done, seen), (Ok(7), vec![0, 3, 3, 7]));
        assert_eq!(whole(10, |_| Err(Errno::IO)), Err(libc::EIO));
    }
}
