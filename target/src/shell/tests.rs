//! The whole target in this process, spoken to over TCP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration as Wait;

use corbel_proto::iscsi::bhs::{BHS_BYTES, Bhs, FINAL, Opcode, TAG_NONE};
use corbel_proto::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage};

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
        isid: Isid([0, 0, 0, 0, 0, 1]),
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
