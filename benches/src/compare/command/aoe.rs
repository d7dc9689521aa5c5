//! AoE, between two network namespaces.

use std::fs;

use super::{Ready, Started, config, words};
use crate::compare::bout::Store;
use crate::compare::kind::Kind;
use crate::compare::net::Net;
use crate::compare::server::Setup;

pub(super) fn command(setup: &Setup<'_>, net: &mut Net) -> Result<(Started, String), String> {
    let (ours, theirs) = net.pair()?;
    let (program, image) = (setup.program.display().to_string(), setup.image.path.display());
    let (image, direct) = (image.to_string(), setup.bout.store == Store::Disk);
    let mut line = words(&["ip", "netns", "exec", &net.servers, &program]);
    let ready = match setup.kind {
        Kind::Corbel | Kind::CorbelMemory => {
            let (place, threads) = (format!("0.1@{ours}"), setup.cores.len().max(1).to_string());
            let own = setup.kind.has_own_store(setup.bout);
            let store = if own { format!("mem:{}", setup.image.bytes) } else { image };
            line.extend(words(&["export", &store, "--aoe", &place, "--threads", &threads]));
            Ready::Says
        }
        Kind::CorbelCached => {
            let text = cached_config(setup, &ours).map_err(|error| error.to_string())?;
            line.extend(words(&["serve", "--config", &config(setup, "toml", &text)?]));
            Ready::Says
        }
        Kind::NullAoe => {
            let size = setup.image.bytes.to_string();
            line.extend(words(&["null-aoe", "0", "1", &ours, "--size", &size]));
            Ready::Says
        }
        Kind::Ggaoed => {
            let state = setup.image.beside("state");
            fs::create_dir_all(state).map_err(|error| error.to_string())?;
            let file = config(setup, "conf", &ggaoed_config(setup, &ours))?;
            line.extend(words(&["--nofork", "--config", &file]));
            Ready::Soon
        }
        _ => {
            line.extend(words(&["-b", "64"]));
            line.extend(direct.then(|| "-d".to_owned()));
            line.extend(words(&["0", "1", &ours, &image]));
            Ready::Soon
        }
    };
    Ok((Started { words: line, ready }, format!("aoe:0.1@{theirs}")))
}

fn cached_config(setup: &Setup<'_>, interface: &str) -> std::io::Result<String> {
    let image = std::path::absolute(&setup.image.path)?;
    let beside = |end: &str| setup.image.beside(end).display().to_string();
    Ok(format!(
        "[daemon]\nthreads = {}\nadmin_socket = {:?}\nstate_dir = {:?}\n\n[[export]]\n\
         name = \"bench\"\npath = {:?}\nacknowledge = \"cached\"\n\
         aoe = [{{ shelf = 0, slot = 1, interfaces = [{interface:?}] }}]\n",
        setup.cores.len().max(1),
        std::path::absolute(beside("sock"))?,
        std::path::absolute(beside("state"))?,
        image,
    ))
}

/// Its queue as deep as the deepest load.
fn ggaoed_config(setup: &Setup<'_>, interface: &str) -> String {
    let beside = |end: &str| setup.image.beside(end).display().to_string();
    format!(
        "[defaults]\nqueue-length = 128\npid-file = {}\ncontrol-socket = {}\n\
         state-directory = {}\ninterfaces = {interface}\ndirect-io = {}\n\n\
         [bench]\npath = {}\nshelf = 0\nslot = 1\n",
        beside("pid"),
        beside("sock"),
        beside("state"),
        setup.bout.store == Store::Disk,
        setup.image.path.display(),
    )
}
