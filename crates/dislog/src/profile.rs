//! The client profile: which servers commands talk to unless told otherwise.
//!
//! `$XDG_CONFIG_HOME/dislog/profile.toml`, or `~/.config/dislog/profile.toml`:
//!
//! ```toml
//! servers = ["127.0.0.1:8400"]
//! tls_dir = "/home/me/certs/alice"    # if the servers want certificates
//! token = "dislog_…"                  # if a bearer token says who you are
//! ```
//!
//! `dislog dev` writes it and removes it, but never touches one that it has not written itself.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// The mark by which `dislog dev` knows its own profile.
const WRITTEN_BY_DEV: &str = "dislog dev";

/// A profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// `host:port` each.
    pub(crate) servers: Vec<String>,
    /// Where the certificates are, if the servers want them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// The bearer token to show the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// Which program wrote it; a person writes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) written_by: Option<String>,
    /// Where it was read.
    #[serde(skip)]
    pub(crate) path: PathBuf,
}

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Profile {
    /// The profile of this user, if there is one.
    pub(crate) fn load() -> Result<Option<Profile>, Failure> {
        path().map_or(Ok(None), |path| Profile::load_from(&path))
    }

    fn load_from(path: &Path) -> Result<Option<Profile>, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(path, &error)),
        };
        let parsed: Result<Profile, toml::de::Error> = toml::from_str(&text);
        let profile = parsed.map_err(|error| match text.contains("token") {
            // The whole error shows the line, which may be the one with the token.
            true => unusable(path, &error.message()),
            false => unusable(path, &error),
        })?;
        Ok(Some(Profile { path: path.to_owned(), ..profile }))
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    let error = error.to_string();
    Failure::new(Exit::Usage, format!("cannot use {}: {}", path.display(), error.trim_end()))
        .hint("correct the file, remove it, or name the servers with --servers")
}

/// The profile of a running `dislog dev`, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct DevProfile {
    path: PathBuf,
    written: Profile,
}

impl DevProfile {
    /// Makes `addresses` the servers of every later command, with certificates from `tls_dir`.
    /// `None` if the user has a profile of their own, which stays, or no place for one.
    pub(crate) fn write(
        addresses: &[String],
        tls_dir: Option<&Path>,
    ) -> Result<Option<DevProfile>, Failure> {
        path().map_or(Ok(None), |path| DevProfile::write_to(path, addresses, tls_dir))
    }

    fn write_to(
        path: PathBuf,
        addresses: &[String],
        tls_dir: Option<&Path>,
    ) -> Result<Option<DevProfile>, Failure> {
        match Profile::load_from(&path)? {
            Some(present) if present.written_by.as_deref() != Some(WRITTEN_BY_DEV) => {
                return Ok(None);
            }
            _ => {}
        }
        let written = Profile {
            servers: addresses.to_vec(),
            tls_dir: tls_dir.map(Path::to_owned),
            token: None,
            written_by: Some(WRITTEN_BY_DEV.to_owned()),
            path: path.clone(),
        };
        let text = toml::to_string(&written).expect("strings are valid TOML");
        replace(&path, &text).map_err(|error| unusable(&path, &error))?;
        Ok(Some(DevProfile { path, written }))
    }
}

impl Drop for DevProfile {
    fn drop(&mut self) {
        // Another `dislog dev` may have written its own meanwhile; that one stays.
        if let Ok(Some(present)) = Profile::load_from(&self.path)
            && present == self.written
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Replaces a file as a whole, so that no reader sees half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

fn path() -> Option<PathBuf> {
    user_dir("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("dislog").join("profile.toml"))
}

/// A directory of the user after the XDG base directory specification, which ignores relative ones.
pub(crate) fn user_dir(variable: &str, under_home: &str) -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(under_home)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_while_dev_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dislog/profile.toml");
        assert_eq!(Profile::load_from(&path), Ok(None));
        let held =
            DevProfile::write_to(path.clone(), &["127.0.0.1:9".to_owned()], None).unwrap().unwrap();
        assert_eq!(Profile::load_from(&path).unwrap().unwrap().servers, ["127.0.0.1:9"]);
        drop(held);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(dir.path().join("dislog")).unwrap().count(), 0);
    }

    #[test]
    fn a_profile_written_by_hand_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        fs::write(&path, "servers = ['prod:8400']\n").unwrap();
        assert!(
            DevProfile::write_to(path.clone(), &["127.0.0.1:9".to_owned()], None)
                .unwrap()
                .is_none()
        );
        assert_eq!(Profile::load_from(&path).unwrap().unwrap().servers, ["prod:8400"]);
    }

    #[test]
    fn what_a_killed_dev_left_is_replaced_and_the_last_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        std::mem::forget(
            DevProfile::write_to(path.clone(), &["127.0.0.1:1".to_owned()], None).unwrap(),
        );
        let second = DevProfile::write_to(path.clone(), &["127.0.0.1:2".to_owned()], None).unwrap();
        let third = DevProfile::write_to(path.clone(), &["127.0.0.1:3".to_owned()], None).unwrap();
        drop(second);
        assert_eq!(Profile::load_from(&path).unwrap().unwrap().servers, ["127.0.0.1:3"]);
        drop(third);
        assert!(!path.exists());
    }

    #[test]
    fn a_broken_profile_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.toml");
        fs::write(&path, "server = 'x'\n").unwrap();
        let failure = Profile::load_from(&path).unwrap_err();
        assert!(failure.message.contains("profile.toml"), "{failure}");
        assert!(failure.message.contains("server"), "{failure}");
    }
}
