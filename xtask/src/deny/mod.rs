//! What may be depended on: licences, duplicate versions, wildcards and sources, by the rules in
//! `deny.toml`.
//!
//! The file is cargo-deny's and means the same there. Left out: advisories, which need a database
//! from the network; `cargo deny check advisories` looks them up.

mod licence;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::finding::Finding;

const RULES_FILE: &str = "deny.toml";

/// What `deny.toml` says, as far as it is checked here.
#[derive(Debug, Default)]
struct Rules {
    licences: Vec<String>,
    /// Licences that are allowed to one crate only.
    exceptions: Vec<(String, Vec<String>)>,
    /// `name@version`, where the version may be only the first of its numbers.
    skipped: Vec<String>,
    registries: Vec<String>,
}

/// A package of the lock file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: Option<String>,
    /// `None` for the crates of this repository.
    source: Option<String>,
    /// Dependencies that accept any version.
    wildcards: Vec<String>,
}

/// Everything that the rules do not allow in the repository at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let path = root.join(RULES_FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let rules = parse_rules(&text)?;
    let packages = parse_packages(&metadata(root)?);
    let mut messages: Vec<String> =
        packages.iter().flat_map(|p| check_package(&rules, p)).collect();
    messages.extend(duplicates(&rules, &packages));
    messages.extend(unused_entries(&rules, &packages));
    let finding = |message| Finding::new(Path::new("Cargo.lock"), 1, message);
    Ok(messages.into_iter().map(finding).collect())
}

fn metadata(root: &Path) -> Result<Value, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

fn parse_rules(text: &str) -> Result<Rules, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{RULES_FILE}: {error}"))?;
    let list = |section: &str, key: &str| {
        let found = table.get(section).and_then(|section| section.get(key));
        let found = found.and_then(toml::Value::as_array);
        found.ok_or_else(|| format!("{RULES_FILE}: [{section}] needs a list {key:?}"))
    };
    let strings = |section: &str, key: &str| list(section, key).map(|list| texts(list));
    let exceptions = table.get("licenses").and_then(|licences| licences.get("exceptions"));
    let exceptions = exceptions.and_then(toml::Value::as_array).into_iter().flatten();
    let exception = |entry: &toml::Value| {
        let name = entry.get("crate")?.as_str()?.to_owned();
        Some((name, texts(entry.get("allow")?.as_array()?)))
    };
    let skipped = list("bans", "skip")?.iter().filter_map(|entry| entry.get("crate")?.as_str());
    Ok(Rules {
        licences: strings("licenses", "allow")?,
        exceptions: exceptions.filter_map(exception).collect(),
        skipped: skipped.map(str::to_owned).collect(),
        registries: strings("sources", "allow-registry")?,
    })
}

fn texts(list: &[toml::Value]) -> Vec<String> {
    list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

fn parse_packages(metadata: &Value) -> Vec<Package> {
    let list = metadata["packages"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut packages: Vec<Package> = list
        .map(|package| Package {
            name: text(&package["name"]).unwrap_or_default(),
            version: text(&package["version"]).unwrap_or_default(),
            licence: text(&package["license"]),
            source: text(&package["source"]),
            wildcards: wildcards(package),
        })
        .collect();
    packages.sort();
    packages
}

/// Paths within the repository need no version.
fn wildcards(package: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| dependency["req"] == "*" && dependency["path"].is_null())
        .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
        .collect()
}

fn check_package(rules: &Rules, package: &Package) -> Vec<String> {
    let Package { name, version, licence, source, wildcards } = package;
    let mut messages = Vec::new();
    match licence {
        None => messages.push(format!("{name} {version} names no licence: read it and replace it")),
        Some(licence) if !is_licensed(rules, package, licence) => messages.push(format!(
            "{name} {version} is under {licence:?}, which {RULES_FILE} does not allow: replace it, \
             or argue for the licence there"
        )),
        Some(_) => {}
    }
    match source.as_deref() {
        None => messages.extend(wildcards.iter().map(|dependency| {
            format!("{name} takes any version of {dependency}: name the one it needs")
        })),
        Some(source) if !is_from(source, &rules.registries) => messages.push(format!(
            "{name} {version} is from {source}, which {RULES_FILE} does not allow: take it from \
             crates.io"
        )),
        Some(_) => {}
    }
    messages
}

/// Whether the crate can be used under its licence, by the rule or by an exception.
fn is_licensed(rules: &Rules, package: &Package, licence: &str) -> bool {
    let exceptions = rules.exceptions.iter().filter(|(name, _)| is(package, name));
    let allowed = exceptions.flat_map(|(_, licences)| licences).chain(&rules.licences);
    licence::is_allowed(licence, &allowed.cloned().collect::<Vec<_>>())
}

fn is_from(source: &str, registries: &[String]) -> bool {
    let address = source.strip_prefix("registry+");
    address.is_some_and(|address| registries.iter().any(|registry| registry == address))
}

/// Crates in more than one version, those that are skipped left out. `packages` is sorted.
fn duplicates(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let kept: Vec<&Package> =
        packages.iter().filter(|p| !rules.skipped.iter().any(|s| is(p, s))).collect();
    let neighbours = kept.windows(2).filter(|pair| pair[0].name == pair[1].name);
    neighbours
        .map(|pair| {
            format!(
                "{} is there as {} and {}: bring its users together, or give the reason in \
                 {RULES_FILE}, [bans] skip",
                pair[0].name, pair[0].version, pair[1].version
            )
        })
        .collect()
}

/// Skips and exceptions for crates that are not there.
fn unused_entries(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let named = rules.skipped.iter().chain(rules.exceptions.iter().map(|(name, _)| name));
    named
        .filter(|name| !packages.iter().any(|package| is(package, name)))
        .map(|name| format!("{name} is not there any more: remove it from {RULES_FILE}"))
        .collect()
}

/// Whether `package` is the one that `name@version` means; `1` stands for every `1.…`.
fn is(package: &Package, name_at_version: &str) -> bool {
    let Some((name, version)) = name_at_version.split_once('@') else {
        return package.name == name_at_version;
    };
    let rest = package.version.strip_prefix(version);
    package.name == name && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRATES_IO: &str = "https://github.com/rust-lang/crates.io-index";

    fn rules() -> Rules {
        parse_rules(&format!(
            "[licenses]\nallow = [\"MIT\"]\n\
             exceptions = [{{ crate = \"odd\", allow = [\"MPL-2.0\"] }}]\n\
             [bans]\nskip = [{{ crate = \"old@1\" }}]\n\
             [sources]\nallow-registry = [{CRATES_IO:?}]\n"
        ))
        .unwrap()
    }

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: Some("MIT".to_owned()),
            source: Some(format!("registry+{CRATES_IO}")),
            wildcards: Vec::new(),
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        assert!(check_package(&rules(), &package("a", "1.0.0")).is_empty());
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_found() {
        let bad = Package { licence: Some("GPL-3.0-only".to_owned()), ..package("a", "1.0.0") };
        assert!(check_package(&rules(), &bad)[0].contains("GPL-3.0-only"));
        let none = Package { licence: None, ..package("a", "1.0.0") };
        assert_eq!(check_package(&rules(), &none).len(), 1);
    }

    #[test]
    fn an_exception_is_for_one_crate() {
        let odd = |name| Package { licence: Some("MPL-2.0".to_owned()), ..package(name, "2.0.0") };
        assert!(check_package(&rules(), &odd("odd")).is_empty());
        assert!(check_package(&rules(), &odd("even"))[0].contains("MPL-2.0"));
    }

    #[test]
    fn another_source_is_found() {
        let git = Package { source: Some("git+https://x".to_owned()), ..package("a", "1.0.0") };
        assert!(check_package(&rules(), &git)[0].contains("git+https://x"));
    }

    #[test]
    fn a_wildcard_is_found_in_our_own_crates() {
        let manifest = serde_json::json!({"packages": [{
            "name": "ours", "version": "0.1.0", "license": "MIT", "source": null,
            "dependencies": [
                {"name": "any", "req": "*"},
                {"name": "near", "req": "*", "path": "/x"},
                {"name": "fixed", "req": "^1"},
            ],
        }]});
        let found = check_package(&rules(), &parse_packages(&manifest)[0]);
        assert_eq!(found, ["ours takes any version of any: name the one it needs"]);
    }

    #[test]
    fn a_second_version_is_found_unless_it_is_skipped() {
        let two = [package("a", "1.0.0"), package("a", "2.0.0")];
        assert!(duplicates(&rules(), &two)[0].starts_with("a is there as 1.0.0 and 2.0.0"));
        let skipped = [package("old", "1.0.0"), package("old", "2.0.0")];
        assert!(duplicates(&rules(), &skipped).is_empty());
        let other = [package("old", "10.0.0"), package("old", "2.0.0")];
        assert_eq!(duplicates(&rules(), &other).len(), 1);
    }

    #[test]
    fn an_entry_without_use_is_found() {
        let odd = package("odd", "1.0.0");
        assert_eq!(unused_entries(&rules(), &[package("a", "1.0.0")]).len(), 2);
        assert_eq!(unused_entries(&rules(), std::slice::from_ref(&odd)).len(), 1);
        assert!(unused_entries(&rules(), &[odd, package("old", "1.2.3")]).is_empty());
    }
}
