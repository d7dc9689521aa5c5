//! What people write: configuration files and command lines.

use std::path::Path;

use corbel_initiator::config as initiator;
use corbel_target::config;

/// A configuration file: read or refused with places that lie inside it, never more. It names no
/// file that is there, so that a secret's file is missing at worst.
pub(super) fn target_config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // A file that the text names could be anything on this machine, even a device.
    if text.contains("secret_file") {
        return;
    }
    match config::parse(text, "fuzzed.toml", Path::new("/nonexistent")) {
        Ok(loaded) => {
            let config = &loaded.config;
            assert!(config::diff(config, config).is_empty(), "a file differs from itself");
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a reason");
            assert!(!problems.to_string().is_empty());
        }
    }
}

/// The initiator's configuration, in the same way; and what is read can be told.
pub(super) fn initiator_config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.contains("secret_file") {
        return;
    }
    match initiator::parse(text, "fuzzed.toml", Path::new("/nonexistent")) {
        Ok(loaded) => {
            let settings = &loaded.settings;
            assert!(initiator::diff(settings, settings).is_empty(), "a file differs from itself");
            for device in &settings.devices {
                assert!(!device.paths.is_empty(), "a device without a path");
                assert!(device.limits().iter().all(|limit| !limit.from.is_empty()));
                for path in &device.paths {
                    let again = initiator::PathSpec::parse(&path.spec.to_string());
                    assert_eq!(again.as_ref(), Ok(&path.spec), "a path that cannot be named");
                }
            }
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a reason");
            assert!(!problems.to_string().is_empty());
        }
    }
}
