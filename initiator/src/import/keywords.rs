//! Every keyword that multipath-tools 0.4 to 0.14 know, and what becomes of it.

use super::multipath::{Context, Key};
use crate::config::Time;

/// What becomes of a keyword with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is this key; a remark, if the meaning is not quite the same.
    Key(Key, Option<&'static str>),
    /// It is so without any key.
    Always(&'static str),
    /// There is nothing here that it could be about.
    NotApplicable(&'static str),
    /// The value is none that multipath-tools know.
    BadValue,
}

use Fate::{Always, BadValue, NotApplicable};

const IDENTITY: &str = "who a device is, is checked on every path before every use";
const CHECKED: &str = "every path is checked by its own traffic, and by pings when it is silent";
const ALUA: &str = "targets are asked for their ALUA state";
const NO_DM: &str = "there is no device-mapper table";
const NO_SCSI_HOST: &str = "there are no kernel SCSI devices below";
const NAMES: &str = "each device has the name that it is given";
const NO_PR: &str = "persistent reservations do not pass through the device";
const DAMPING: &str = "flap_failures, flap_window and flap_hold do this";
const UDEV: &str = "no device is taken that no [[device]] names";
const OLD: &str = "multipath-tools itself ignores it";
const LOG: &str = "--log and RUST_LOG say what is logged";
const WEIGHT: &str = "give paths a weight: { path = \"…\", weight = N }";

/// What becomes of `keyword value`; `None` if no multipath-tools knows it.
pub(super) fn fate(keyword: &str, value: &str, context: &Context) -> Option<Fate> {
    mapped(keyword, value, context).or_else(|| known(keyword))
}

/// Keywords that are one of our keys.
fn mapped(keyword: &str, value: &str, context: &Context) -> Option<Fate> {
    let word = value.split_whitespace().next().unwrap_or_default();
    Some(match keyword {
        "path_grouping_policy" | "default_path_grouping_policy" => grouping(word),
        "path_selector" | "selector" | "default_selector" => selector(word),
        "rr_min_io" | "rr_min_io_rq" => match value.parse::<u32>() {
            Ok(number) => {
                let turn = number.clamp(1, 100_000);
                plain("requests_per_turn", turn.to_string(), "counts with round-robin only")
            }
            Err(_) => BadValue,
        },
        "failback" => match word {
            "immediate" | "manual" => quoted("failback", word),
            "followover" => Fate::Key(
                Key::new("failback", "\"immediate\""),
                Some("followover is not known here"),
            ),
            _ => seconds("failback", word),
        },
        "no_path_retry" => no_path_retry(word, context),
        "features" | "default_features" => features(value),
        "fast_io_fail_tmo" => match word {
            "off" => NotApplicable("a lost path is given up after answer_within in any case"),
            _ => match seconds("fast_io_fail", word) {
                Fate::Key(key, _) => {
                    Fate::Key(key, Some("a lost path is given up after answer_within in any case"))
                }
                other => other,
            },
        },
        "checker_timeout" => match word {
            "0" => NotApplicable("0 is the kernel's own limit; answer_within has its default"),
            _ => seconds("answer_within", word),
        },
        "san_path_err_threshold" => match value.parse::<u32>() {
            Ok(number) => plain("flap_failures", number.min(1000).to_string(), "per flap_window"),
            Err(_) if word == "no" => plain("flap_failures", "0".to_owned(), "off"),
            Err(_) => BadValue,
        },
        "san_path_err_recovery_time" | "marginal_path_err_recheck_gap_time" => match word {
            "no" => NotApplicable("off is the default there; flap_hold has its own"),
            _ => seconds("flap_hold", word),
        },
        "marginal_path_double_failed_time" => match word {
            "no" => NotApplicable("off is the default there; flap_window has its own"),
            _ => seconds("flap_window", word),
        },
        "auto_resize" => match word {
            "never" => quoted("resize", "never"),
            "grow_only" => quoted("resize", "grow-only"),
            "grow_shrink" => Fate::Key(
                Key::new("resize", "\"grow-only\""),
                Some("a device never shrinks by itself"),
            ),
            _ => BadValue,
        },
        "prio" | "default_prio" => prio(word),
        "prio_callout" | "default_prio_callout" => {
            prio(word.rsplit('/').next().unwrap_or_default().trim_start_matches("mpath_"))
        }
        _ => return None,
    })
}

fn plain(key: &'static str, value: String, remark: &'static str) -> Fate {
    Fate::Key(Key { key, value }, Some(remark))
}

fn quoted(key: &'static str, word: &str) -> Fate {
    Fate::Key(Key::new(key, &format!("\"{word}\"")), None)
}

fn seconds(key: &'static str, word: &str) -> Fate {
    match word.parse::<u32>() {
        Ok(number) if number <= 86_400 => quoted(key, &format!("{number}s")),
        _ => BadValue,
    }
}

fn grouping(word: &str) -> Fate {
    match word {
        "failover" | "multibus" | "group_by_serial" | "group_by_prio" => quoted("grouping", word),
        "group_by_tpg" => Fate::Key(
            Key::new("grouping", "\"group_by_prio\""),
            Some("target port groups of one priority stand together"),
        ),
        "group_by_node_name" => Fate::Key(
            Key::new("grouping", "\"group_by_serial\""),
            Some("Fibre Channel node names are not known here; the target's serial number is"),
        ),
        _ => BadValue,
    }
}

fn selector(word: &str) -> Fate {
    match word {
        "round-robin" | "queue-length" | "service-time" => quoted("selector", word),
        "historical-service-time" => Fate::Key(
            Key::new("selector", "\"service-time\""),
            Some("it is measured, not configured"),
        ),
        "io-affinity" => NotApplicable("paths belong to no CPU here"),
        _ => BadValue,
    }
}

fn no_path_retry(word: &str, context: &Context) -> Fate {
    match word {
        "queue" | "fail" => quoted("no_path_retry", word),
        _ => match word.parse::<u32>() {
            Ok(0) => quoted("no_path_retry", "fail"),
            Ok(checks) => {
                let seconds = u64::from(checks).saturating_mul(context.polling_interval);
                let time = std::time::Duration::from_secs(seconds.min(30 * 86_400));
                Fate::Key(
                    Key::new("no_path_retry", &format!("\"{}\"", Time(time))),
                    Some("so many checks, polling_interval apart"),
                )
            }
            Err(_) => BadValue,
        },
    }
}

fn features(value: &str) -> Fate {
    let words: Vec<&str> = value.split_whitespace().collect();
    match words[..] {
        ["0"] | [] => NotApplicable(NO_DM),
        _ if words.contains(&"queue_if_no_path") => {
            Fate::Key(Key::new("no_path_retry", "\"queue\""), Some("a given no_path_retry wins"))
        }
        _ => NotApplicable("pg_init_* and queue_mode are about the kernel's multipath target"),
    }
}

fn prio(word: &str) -> Fate {
    match word.trim_start_matches("prio_") {
        "alua" | "sysfs" => Always(ALUA),
        "const" | "none" => NotApplicable("a target that tells no ALUA state has equal paths"),
        "weightedpath" | "weighted" | "iet" | "datacore" => NotApplicable(WEIGHT),
        "path_latency" => NotApplicable("selector = \"service-time\" measures paths"),
        "random" => NotApplicable("paths have lasting priorities"),
        "emc" | "ontap" | "netapp" | "rdac" | "tpc" | "hp_sw" | "hds" | "hds_modular" | "ana"
        | "bal_units" => NotApplicable("this way of one maker is not spoken; ALUA is"),
        _ => BadValue,
    }
}

/// Keywords that say nothing here, by why.
const KNOWN: &[(&[&str], Fate)] = &[
    (&["path_checker", "checker", "default_path_checker", "detect_checker"], Always(CHECKED)),
    (&["polling_interval"], Always("no_path_retry is counted in it; pings have ping_after")),
    (&["max_polling_interval", "strict_timing", "force_sync"], Always(CHECKED)),
    (&["detect_prio"], Always(ALUA)),
    (&["prio_args", "rr_weight"], NotApplicable(WEIGHT)),
    (
        &["detect_pgpolicy", "detect_pgpolicy_use_tpg"],
        NotApplicable("paths stand together as `grouping` says"),
    ),
    (&["recheck_wwid", "disable_changed_wwids", "purge_disconnected"], Always(IDENTITY)),
    (&["uid_attribute", "uid_attrs", "getuid_callout", "default_getuid_callout"], Always(IDENTITY)),
    (&["default_uid_attribute", "vpd_vendor"], Always(IDENTITY)),
    (&["user_friendly_names", "alias_prefix", "bindings_file", "wwids_file"], NotApplicable(NAMES)),
    (&["find_multipaths", "find_multipaths_timeout", "allow_usb_devices"], NotApplicable(UDEV)),
    (&["enable_foreign", "reassign_maps", "ignore_new_boot_devs"], NotApplicable(UDEV)),
    (
        &["queue_without_daemon"],
        NotApplicable("there is no device without the daemon; requests wait while it restarts"),
    ),
    (&["dev_loss_tmo"], Always("a lost path is tried again for ever, see retry_max")),
    (&["eh_deadline", "max_retries", "max_sectors_kb", "unpriv_sgio"], NotApplicable(NO_SCSI_HOST)),
    (&["hardware_handler", "retain_attached_hw_handler"], NotApplicable(NO_SCSI_HOST)),
    (&["revision", "product_blacklist", "all_devs"], NotApplicable(NO_SCSI_HOST)),
    (
        &["ghost_delay"],
        NotApplicable("a path that stands by is used as soon as no better one is left"),
    ),
    (
        &["flush_on_last_del", "deferred_remove", "remove_retries"],
        NotApplicable("`detach` refuses while the device is in use, or is told --force"),
    ),
    (
        &["skip_kpartx", "partition_delimiter"],
        NotApplicable("the kernel reads the partitions of the device"),
    ),
    (&["mode", "uid", "gid"], NotApplicable("udev rules give /dev/ublkbN its owner and mode")),
    (&["reservation_key", "prkeys_file", "prkey_file", "all_tg_pt"], NotApplicable(NO_PR)),
    (&["san_path_err_forget_rate", "marginal_pathgroups"], NotApplicable(DAMPING)),
    (
        &["marginal_path_err_sample_time", "marginal_path_err_rate_threshold"],
        NotApplicable(DAMPING),
    ),
    (&["delay_watch_checks", "delay_wait_checks"], NotApplicable(DAMPING)),
    (&["verbosity", "log_checker_err"], NotApplicable(LOG)),
    (&["max_fds", "max_polling_interval"], NotApplicable("limits are raised as far as they go")),
    (
        &["uxsock_timeout"],
        NotApplicable("a device that does not answer in 2 s is told as busy, alone"),
    ),
    (
        &["retrigger_tries", "retrigger_delay", "missing_uev_wait_timeout"],
        NotApplicable("paths do not come from udev"),
    ),
    (&["config_dir"], NotApplicable("import the files in it one by one")),
    (&["multipath_dir", "pg_timeout", "udev_dir", "dev_node"], NotApplicable(OLD)),
    (&["vendor", "product"], Always("the comment of this section names it")),
];

fn known(keyword: &str) -> Option<Fate> {
    let row = KNOWN.iter().find(|(keywords, _)| keywords.contains(&keyword));
    row.map(|(_, fate)| fate.clone())
}
