#!/usr/bin/env python3
"""vblade and tgt behind corbel-target's command line, as far as the interop scripts use it.

CORBEL_TARGET=tests/interop/peers.py CORBEL_TEST_LUN=1 tests/interop/guest-aoe.sh says whether a
failure is the script's, the guest's or ours. (tgt keeps LUN 0 for itself.) Not part of a test run.

usage: peers.py serve --config FILE
"""

import os
import signal
import subprocess
import sys
import time
import tomllib


# The scripts end this program with KILL too; its children must not stay.
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]


def tgtadm(port, *arguments):
    return subprocess.run(["tgtadm", "-C", str(port), "--lld", "iscsi", *arguments],
                          capture_output=True, text=True, check=False)


def secret(section):
    with open(section["secret_file"], encoding="utf-8") as file:
        return file.read().strip()


def start_vblades(config):
    running = []
    for export in config.get("export", []):
        for endpoint in export.get("aoe", []):
            for interface in endpoint["interfaces"]:
                where = [str(endpoint["shelf"]), str(endpoint["slot"]), interface, export["path"]]
                running.append(subprocess.Popen([*DIE_WITH_US, "vblade", *where], stdout=sys.stderr))
    return running


def start_tgtd(config):
    targets = config.get("target", [])
    if not targets:
        return []
    port = 1000 + os.getpid() % 30000
    addresses = sorted({p for t in targets for p in t["portals"]})
    portals = ",".join("portal=" + address for address in addresses)
    daemon = subprocess.Popen([*DIE_WITH_US, "tgtd", "-f", "-C", str(port), "--iscsi", portals],
                              stdout=sys.stderr)
    while tgtadm(port, "--mode", "sys", "--op", "show").returncode:
        time.sleep(0.1)
    for tid, target in enumerate(targets, 1):
        to = ["--tid", str(tid)]
        tgtadm(port, "--mode", "target", "--op", "new", *to, "--targetname", target["name"])
        for digest in ("HeaderDigest", "DataDigest"):
            tgtadm(port, "--mode", "target", "--op", "update", *to, "--name", digest, "--value",
                   "CRC32C,None")
        for export in config["export"]:
            for endpoint in export.get("iscsi", []):
                if endpoint["target"] == target["name"]:
                    tgtadm(port, "--mode", "logicalunit", "--op", "new", *to, "--lun",
                           str(endpoint["lun"]), "--backing-store", export["path"])
        for key, way in (("chap", []), ("mutual_chap", ["--outgoing"])):
            if key in target:
                user = target[key]["user"]
                tgtadm(port, "--mode", "account", "--op", "new", "--user", user,
                       "--password", secret(target[key]))
                tgtadm(port, "--mode", "account", "--op", "bind", *to, "--user", user, *way)
        tgtadm(port, "--mode", "target", "--op", "bind", *to, "--initiator-address", "ALL")
    return [daemon]


def end(processes):
    for process in processes:
        process.kill()  # tgtd does not listen to TERM
        process.wait()


def main():
    if sys.argv[1:3] != ["serve", "--config"]:
        sys.exit(__doc__)
    with open(sys.argv[3], "rb") as file:
        config = tomllib.load(file)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    blades, daemons = start_vblades(config), start_tgtd(config)
    time.sleep(0.5)
    print("ready", flush=True)
    while signal.sigwait({signal.SIGTERM, signal.SIGINT, signal.SIGHUP}) == signal.SIGHUP:
        end(blades)  # vblade reads the size of its file once
        blades = start_vblades(config)
    end(blades + daemons)


main()
