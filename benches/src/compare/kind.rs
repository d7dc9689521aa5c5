//! Who can be compared, in what, and where each is found.

use std::path::PathBuf;

use super::bout::{Bout, Protocol, Store};
use super::sample::Load;

/// Who can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Corbel,
    /// The same, acknowledging AoE writes before they are on stable storage, as others do.
    CorbelCached,
    /// The same, with memory of its own instead of a file in RAM.
    CorbelMemory,
    /// With its 16 threads for each LUN.
    Tgt,
    /// With one.
    TgtOne,
    /// Its threads never sleep. In RAM a malloc bdev, on a file the uring bdev.
    Spdk,
    /// The same in its interrupt mode, which is to sleep.
    SpdkInterrupt,
    /// On a file, by its aio bdev, which unlike the uring bdev can empty a cache.
    SpdkAio,
    Vblade,
    Ggaoed,
    /// No target but a limit: [`crate::null_aoe`].
    NullAoe,
    /// No target but a limit: the same load on the file itself.
    Fio,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Corbel => "corbel",
            Self::CorbelCached => "corbel-cached",
            Self::CorbelMemory => "corbel-memory",
            Self::Tgt => "tgt",
            Self::TgtOne => "tgt-1",
            Self::Spdk => "spdk",
            Self::SpdkInterrupt => "spdk-interrupt",
            Self::SpdkAio => "spdk-aio",
            Self::Vblade => "vblade",
            Self::Ggaoed => "ggaoed",
            Self::NullAoe => "null-aoe",
            Self::Fio => "fio",
        }
    }

    /// All that ours can be compared with.
    pub(crate) const PEERS: [Self; 11] = [
        Self::Tgt,
        Self::TgtOne,
        Self::Spdk,
        Self::SpdkInterrupt,
        Self::SpdkAio,
        Self::Vblade,
        Self::Ggaoed,
        Self::NullAoe,
        Self::Fio,
        Self::CorbelCached,
        Self::CorbelMemory,
    ];

    pub(crate) fn peer(text: &str) -> Result<Self, String> {
        Self::PEERS.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names = Self::PEERS.map(Self::name).join(", ");
            format!("`{text}` is no peer that is known; there are {names}")
        })
    }

    pub(crate) const fn is_spdk(self) -> bool {
        matches!(self, Self::Spdk | Self::SpdkInterrupt | Self::SpdkAio)
    }

    /// Whether its threads never sleep.
    pub(crate) const fn polls(self) -> bool {
        matches!(self, Self::Spdk | Self::SpdkAio)
    }

    /// Whether it takes part: speaks the protocol, and differs from the others there.
    pub(crate) fn takes_part(self, bout: &Bout) -> bool {
        let (aoe, disk) = (bout.protocol == Protocol::Aoe, bout.store == Store::Disk);
        match self {
            Self::Corbel => true,
            // In RAM nothing is more stable than what was taken.
            Self::CorbelCached => aoe && disk,
            Self::CorbelMemory => aoe && bout.store == Store::Ram,
            Self::Tgt => !aoe && bout.store != Store::Own,
            Self::TgtOne => !aoe && bout.store != Store::Own && !bout.every_core,
            Self::Spdk => !aoe,
            Self::SpdkInterrupt => !aoe && !disk && !bout.every_core,
            Self::SpdkAio => !aoe && disk,
            Self::Vblade | Self::Ggaoed => aoe,
            Self::NullAoe => aoe && !disk,
            Self::Fio => disk,
        }
    }

    /// Why it is not measured where a reader would look for it.
    pub(crate) fn why_not(self, bout: &Bout) -> Option<&'static str> {
        (self == Self::Spdk && bout.every_core)
            .then_some("it polls on all its cores, so that none is left for the load")
    }

    /// Whether this load says something of it.
    pub(crate) const fn does(self, load: &Load) -> bool {
        match self {
            Self::Fio => !load.beside_writer && load.sessions == 1,
            // Its uring bdev empties no cache; its aio bdev does.
            Self::Spdk => !load.durable,
            _ => true,
        }
    }

    /// Whether what it serves is memory of its own rather than a file.
    pub(crate) fn has_own_store(self, bout: &Bout) -> bool {
        let always = self.is_spdk() || self == Self::CorbelMemory;
        bout.store == Store::Own || (always && bout.store == Store::Ram)
    }

    /// The program, and what brings it, if it is another's.
    pub(crate) const fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Corbel | Self::CorbelCached | Self::CorbelMemory => {
                ("corbel-target", "this build")
            }
            Self::Tgt | Self::TgtOne => ("tgtd", "Debian package tgt"),
            Self::Spdk | Self::SpdkInterrupt | Self::SpdkAio => {
                ("iscsi_tgt", "built from SPDK's source; name it by --spdk")
            }
            Self::Vblade => ("vblade", "Debian package vblade"),
            Self::Ggaoed => ("ggaoed", "built from its source; name it by --ggaoed"),
            Self::NullAoe => ("corbel-bench", "this program"),
            Self::Fio => ("fio", "Debian package fio"),
        }
    }
}

/// Where a program is; also where only root looks.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let places = std::env::split_paths(&path).chain(more);
    places.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bout(name: &str) -> &'static Bout {
        Bout::ALL.iter().find(|bout| bout.name == name).unwrap()
    }

    #[test]
    fn peers_are_called_by_their_names() {
        assert_eq!(Kind::peer("tgt-1"), Ok(Kind::TgtOne));
        assert!(
            Kind::peer("corbel").is_err() && Kind::peer("scst").unwrap_err().contains("vblade")
        );
        assert!(Kind::Vblade.takes_part(bout("aoe-ram")));
        assert!(!Kind::Vblade.takes_part(bout("iscsi-ram")));
        assert!(!Kind::CorbelCached.takes_part(bout("aoe-ram")));
    }

    #[test]
    fn limits_are_where_they_limit() {
        for bout in &Bout::ALL {
            assert_eq!(Kind::Fio.takes_part(bout), bout.name.ends_with("-file"), "{}", bout.name);
        }
        assert!(Kind::NullAoe.takes_part(bout("aoe-1500")));
        assert!(!Kind::NullAoe.takes_part(bout("aoe-file")));
    }

    #[test]
    fn nobody_is_measured_by_what_it_does_not_do() {
        let durable = Load::new("randwrite", 4096, 32).durable();
        assert!(!Kind::Spdk.does(&durable) && Kind::SpdkAio.does(&durable));
        assert!(!Kind::Fio.does(&Load::new("randread", 4096, 1).beside_writer()));
        assert!(Kind::Spdk.why_not(bout("iscsi-two-cores")).is_some());
        assert!(Kind::Spdk.why_not(bout("iscsi-ram")).is_none());
    }

    #[test]
    fn who_has_no_file_has_memory_of_its_own() {
        assert!(Kind::Spdk.has_own_store(bout("iscsi-ram")));
        assert!(!Kind::Spdk.has_own_store(bout("iscsi-file")));
        assert!(Kind::Corbel.has_own_store(bout("iscsi-own-memory")));
        assert!(!Kind::Corbel.has_own_store(bout("iscsi-ram")));
        assert!(Kind::CorbelMemory.takes_part(bout("aoe-1500")));
        assert!(Kind::CorbelMemory.has_own_store(bout("aoe-1500")));
        assert!(!Kind::CorbelMemory.takes_part(bout("iscsi-own-memory")));
    }
}
