//! The whole target in this process, spoken to over TCP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration as Wait;

use corbel_proto::iscsi::bhs::{BHS_BYTES, Bhs, FINAL, Lun, Opcode, TAG_NONE};
use corbel_proto::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage};
use corbel_proto::iscsi::pdu::scsi::{Attribute, ScsiCommand};

use super::*;
use crate::config;

const TARGET: &str = "iqn.2026-11.org.example:ram";

/// Sends a PDU and reads the answer.
fn ask(stream: &mut TcpStream, bhs: Bhs, data: &[u8]) -> Bhs {
    let len = u32::try_from(data.len()).unwrap();
    let mut bytes = bhs.with_data_bytes(len).0.to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    stream.write_all(&bytes).unwrap();
    let mut header = [0; BHS_BYTES];
    stream.read_exact(&mut header).unwrap();
    let bhs = Bhs(header);
    let mut rest = vec![0; (bhs.data_bytes() as usize).next_multiple_of(4)];
    stream.read_exact(&mut rest).unwrap();
    bhs
}

fn login(port: u16, tsih: u16, cid: u16) -> (TcpStream, LoginResponse) {
    login_as(port, 1, tsih, cid)
}

fn login_as(port: u16, isid: u8, tsih: u16, cid: u16) -> (TcpStream, LoginResponse) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Wait::from_secs(20))).unwrap();
    let request = LoginRequest {
        transit: true,
        continues: false,
        current: Stage::Operational,
        next: Some(Stage::FullFeature),
        version_max: 0,
        version_min: 0,
        data_len: 0,
        isid: Isid([0, 0, 0, 0, 0, isid]),
        tsih,
        task_tag: 0,
        cid,
        cmd_sn: 1,
        exp_stat_sn: 0,
    };
    let mut text = format!("InitiatorName=iqn.2026-11.org.example:node\0TargetName={TARGET}\0");
    if tsih == 0 {
        text += "MaxConnections=16\0";
    }
    let response = ask(&mut stream, Bhs(request.emit()), text.as_bytes());
    (stream, LoginResponse::parse(&response.0).unwrap())
}

/// The kernel spreads connections over threads; all of a session's come together on one.
#[test]
fn connections_of_a_session_join_it_whichever_thread_took_them() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[daemon]\nthreads = 2\nlimits = {{ memory = \"16MiB\" }}\n\
         [[export]]\nname = \"ram\"\npath = \"mem:1M\"\niscsi = [{{ target = \"{TARGET}\" }}]\n\
         [[target]]\nname = \"{TARGET}\"\nportals = [\"127.0.0.1:{port}\"]\nconnections = 12\n"
    );
    let config = config::parse(&text, "t", Path::new("/")).unwrap().config;
    let running = start(&config, StartOptions { persist: false }).unwrap();
    let (first, response) = login(port, 0, 0);
    let tsih = response.tsih;
    let mut all = vec![first];
    for cid in 1..12 {
        let (stream, response) = login(port, tsih, cid);
        assert_eq!((response.status.code(), response.tsih), (0, tsih), "connection {cid}");
        all.push(stream);
    }
    let (_, response) = login(port, tsih, 12);
    assert_eq!(response.status.code(), 0x0206, "one too many");
    for (sn, stream) in (1..).zip(&mut all) {
        let ping = Bhs::new(Opcode::NopOut, FINAL).put_u32(16, sn).put_u32(20, TAG_NONE);
        let answer = ask(stream, ping.put_u32(24, sn), b"ping");
        assert_eq!((answer.opcode(), answer.itt()), (Some(Opcode::NopIn), sn));
        assert_eq!(answer.u32_at(28), sn + 1, "one CmdSN for all");
    }
    running.stop();
    drop(all);
    running.wait();
}

#[test]
fn status_tells_which_exports_are_encrypted_and_never_their_keys() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "5c".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[daemon]\nthreads = 1\nlimits = {{ memory = \"16MiB\" }}\n\
         [[export]]\nname = \"open\"\npath = \"mem:4M\"\niscsi = [{{ target = \"{TARGET}\" }}]\n\
         [[export]]\nname = \"secret\"\npath = \"mem:4M\"\n\
         encryption = {{ key_file = \"key\" }}\n\
         iscsi = [{{ target = \"{TARGET}\", lun = 1 }}]\n\
         [[target]]\nname = \"{TARGET}\"\nportals = [\"127.0.0.1:{port}\"]\n"
    );
    let config = config::parse(&text, "t", folder.path()).unwrap().config;
    let running = start(&config, StartOptions { persist: false }).unwrap();
    let status = crate::admin::Daemon::status(&running);
    let told = |name: &str| {
        let export = status.exports.iter().find(|export| export.name == name).unwrap();
        export.encryption.clone()
    };
    assert_eq!(told("open"), None);
    let secret = told("secret").unwrap();
    assert_eq!((secret.key_slot, secret.key_state.as_str()), (0, "settled"));
    assert!(!serde_json::to_string(&status).unwrap().contains("5c5c"));
    running.stop();
    running.wait();
}

/// READ (10), WRITE (10) with immediate data, or TEST UNIT READY, from the first block on.
fn command(number: u32, opcode: u8, bytes: u32) -> Bhs {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[7..9].copy_from_slice(&u16::try_from(bytes / 512).unwrap().to_be_bytes());
    let (read, write) = (opcode == 0x28, opcode == 0x2a);
    let (immediate, is_final, attribute) = (false, true, Attribute::Simple);
    let (lun, itt, edtl) = (Lun::new(0), number, bytes);
    let (cmd_sn, exp_stat_sn) = (number, 1);
    ScsiCommand {
        immediate,
        is_final,
        read,
        write,
        attribute,
        lun,
        itt,
        edtl,
        cmd_sn,
        exp_stat_sn,
        cdb,
    }
    .emit()
}

/// A store in memory lends what is read to what is sent, and nobody writes there meanwhile.
#[test]
fn a_reader_that_does_not_read_its_socket_keeps_no_writer_waiting() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[daemon]\nthreads = 1\nlimits = {{ memory = \"64MiB\" }}\n\
         [[export]]\nname = \"ram\"\npath = \"mem:1M\"\niscsi = [{{ target = \"{TARGET}\" }}]\n\
         [[target]]\nname = \"{TARGET}\"\nportals = [\"127.0.0.1:{port}\"]\n"
    );
    let config = config::parse(&text, "t", Path::new("/")).unwrap().config;
    let running = start(&config, StartOptions { persist: false }).unwrap();
    let (mut lazy, _) = login_as(port, 1, 0, 0);
    let (mut writer, _) = login_as(port, 2, 0, 0);
    for stream in [&mut lazy, &mut writer] {
        // The first command hears of the power-on (SPC-4 5.14).
        assert_eq!(ask(stream, command(1, 0, 0), &[]).opcode(), Some(Opcode::ScsiResponse));
    }
    let reads: Vec<u8> = (2..66).flat_map(|n| command(n, 0x28, 512 << 10).0).collect();
    lazy.write_all(&reads).unwrap();
    for number in 2..40 {
        let answer = ask(&mut writer, command(number, 0x2a, 512), &[7; 512]);
        assert_eq!((answer.opcode(), answer.itt()), (Some(Opcode::ScsiResponse), number));
        std::thread::sleep(Wait::from_millis(5));
    }
    // Whoever is late gets everything, each time whole.
    let (mut header, mut left) = ([0; BHS_BYTES], 64 * (512 << 10));
    while left > 0 {
        lazy.read_exact(&mut header).unwrap();
        let bhs = Bhs(header);
        assert_eq!(bhs.opcode(), Some(Opcode::DataIn));
        let mut data = vec![0; bhs.data_bytes() as usize];
        lazy.read_exact(&mut data).unwrap();
        assert!(data[..512] == [7; 512] || data[..512] == [0; 512], "a torn block");
        left -= data.len();
    }
    running.stop();
    drop((lazy, writer));
    running.wait();
}
