#!/usr/bin/env python3
"""deny.toml's rules on licences, bans and sources, for machines without cargo-deny.

usage: cargo metadata --locked --format-version 1 | dependencies.py deny.toml
"""

import json
import re
import sys
import tomllib


def permitted(expression, allowed):
    """Whether an SPDX expression (or the old `A/B` for `A OR B`) can be met with `allowed`."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def alternatives(at):
        met, at = conjunction(at)
        while at < len(words) and words[at] == "OR":
            other, at = conjunction(at + 1)
            met = met or other
        return met, at

    def conjunction(at):
        met, at = licence(at)
        while at < len(words) and words[at] == "AND":
            other, at = licence(at + 1)
            met = met and other
        return met, at

    def licence(at):
        if words[at] == "(":
            met, at = alternatives(at + 1)
            return met, at + 1
        name, at = words[at], at + 1
        if at < len(words) and words[at] == "WITH":
            return name in allowed or f"{name} WITH {words[at + 1]}" in allowed, at + 2
        return name in allowed, at

    return alternatives(0)[0]


def findings(metadata, rules):
    allowed = set(rules["licenses"]["allow"])
    banned = {ban["crate"]: ban["reason"] for ban in rules["bans"]["deny"]}
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    versions = {}
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        versions.setdefault(package["name"], []).append(package["version"])
        if not permitted(package["license"] or "none", allowed):
            yield f"{name}: licence {package['license']} is not in deny.toml's list"
        if package["name"] in banned:
            yield f"{name} is banned: {banned[package['name']]}"
        if package["source"] is not None and package["source"] not in registries:
            yield f"{name} comes from {package['source']}, which deny.toml does not know"
        if package["source"] is None:
            for dependency in package["dependencies"]:
                if dependency["req"] == "*" and dependency.get("path") is None:
                    yield f"{name} asks for any version of {dependency['name']}; name one"
    for crate, several in versions.items():
        if len(several) > 1:
            print(f"note: {crate} is there as {', '.join(sorted(several))}")


def prove():
    """The parser of licence expressions, on expressions that once were got wrong."""
    allowed = {"MIT", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"}
    for expression, met in (("MIT OR GPL-3.0", True), ("GPL-3.0 AND MIT", False),
                            ("(GPL-3.0 OR MIT) AND Unicode-3.0", True), ("GPL-3.0/MIT", True),
                            ("Apache-2.0 WITH LLVM-exception", True), ("Apache-2.0", False)):
        assert permitted(expression, allowed) == met, expression


def main():
    prove()
    with open(sys.argv[1], "rb") as file:
        rules = tomllib.load(file)
    metadata = json.load(sys.stdin)
    found = list(findings(metadata, rules))
    print("\n".join(found) or f"{len(metadata['packages'])} packages, all as deny.toml wants")
    sys.exit(bool(found))


main()
