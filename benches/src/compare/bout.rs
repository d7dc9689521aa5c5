//! What is compared: one protocol on one kind of store, and the loads put on it.

use super::sample::Load;

/// Over which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Iscsi,
    Aoe,
}

/// Where the data lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// A file in RAM; SPDK, which does without files there, has memory of its own.
    Ram,
    /// Memory of the server's own.
    Own,
    /// A file on a disk, past the page cache.
    Disk,
}

/// One comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bout {
    pub(crate) name: &'static str,
    /// For a reader.
    pub(crate) title: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) store: Store,
    /// Of the Ethernet; without a meaning for iSCSI.
    pub(crate) mtu: u32,
    /// Servers may use the load's core, too.
    pub(crate) every_core: bool,
}

/// Room for 4 KiB and 8 KiB in one frame.
const JUMBO: u32 = 9000;

impl Bout {
    /// All there are, in the order in which they are done.
    pub(crate) const ALL: [Self; 7] = [
        Self {
            name: "iscsi-ram",
            title: "iSCSI, store in RAM",
            protocol: Protocol::Iscsi,
            store: Store::Ram,
            mtu: JUMBO,
            every_core: false,
        },
        Self {
            name: "iscsi-own-memory",
            title: "iSCSI, each server's own memory",
            protocol: Protocol::Iscsi,
            store: Store::Own,
            mtu: JUMBO,
            every_core: false,
        },
        Self {
            name: "iscsi-file",
            title: "iSCSI, image file on a disk, O_DIRECT",
            protocol: Protocol::Iscsi,
            store: Store::Disk,
            mtu: JUMBO,
            every_core: false,
        },
        Self {
            name: "iscsi-two-cores",
            title: "iSCSI, store in RAM, one session and two on one LUN, servers on the load's \
                    core, too",
            protocol: Protocol::Iscsi,
            store: Store::Ram,
            mtu: JUMBO,
            every_core: true,
        },
        Self {
            name: "aoe-ram",
            title: "AoE, store in RAM, MTU 9000",
            protocol: Protocol::Aoe,
            store: Store::Ram,
            mtu: JUMBO,
            every_core: false,
        },
        Self {
            name: "aoe-1500",
            title: "AoE, store in RAM, MTU 1500",
            protocol: Protocol::Aoe,
            store: Store::Ram,
            mtu: 1500,
            every_core: false,
        },
        Self {
            name: "aoe-file",
            title: "AoE, image file on a disk, O_DIRECT, MTU 9000",
            protocol: Protocol::Aoe,
            store: Store::Disk,
            mtu: JUMBO,
            every_core: false,
        },
    ];

    /// The names, for the command line.
    pub(crate) const NAMES: [&'static str; 7] = {
        let mut names = [""; 7];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].name;
            at += 1;
        }
        names
    };

    /// The loads; those that read 4 KiB make the curve over queue depth.
    pub(crate) fn loads(&self) -> Vec<Load> {
        if self.every_core {
            let [read, write] = ["randread", "randwrite"].map(|rw| Load::new(rw, 4096, 32));
            return vec![read, read.sessions(2), write, write.sessions(2)];
        }
        if self.mtu < JUMBO {
            return ["randread", "randwrite"].map(|rw| Load::new(rw, 1024, 32)).into();
        }
        let depths = [1, 4, 16, 32, 128];
        let mut loads: Vec<_> = depths.map(|qd| Load::new("randread", 4096, qd)).into();
        let write = Load::new("randwrite", 4096, 32);
        loads.push(write);
        match self.protocol {
            Protocol::Iscsi => {
                // In RAM there is nothing to be written through to.
                loads.extend((self.store == Store::Disk).then(|| write.durable()));
                loads.push(Load::new("read", 128 << 10, 16));
                loads.push(Load::new("write", 1 << 20, 8));
            }
            Protocol::Aoe => loads.push(Load::new("read", 8 << 10, 32)),
        }
        loads.push(Load::new("randread", 4096, 1).beside_writer());
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_has_each_load_once() {
        for bout in &Bout::ALL {
            let loads = bout.loads();
            for (at, load) in loads.iter().enumerate() {
                assert!(!loads[..at].contains(load), "{}: {}", bout.name, load.name());
            }
        }
    }

    #[test]
    fn at_mtu_1500_a_request_fits_one_frame() {
        let bout = Bout::ALL.iter().find(|bout| bout.name == "aoe-1500").unwrap();
        let fits = corbel_proto::aoe::sectors_fitting(bout.mtu) * 512;
        assert!(bout.loads().iter().all(|load| load.bs == u64::from(fits)));
    }
}
