//! Names: a file or directory is a noun of the domain, never a grab bag.

use crate::finding::Finding;
use crate::source::Source;

const FORBIDDEN: [&str; 7] = ["util", "utils", "common", "helper", "helpers", "misc", "types"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let files = sources.iter().filter(|source| source.is_rust() || source.has_ending("py"));
    files.filter_map(check_path).collect()
}

fn check_path(source: &Source) -> Option<Finding> {
    let parts = source.path.with_extension("");
    let name = parts
        .components()
        .filter_map(|part| part.as_os_str().to_str())
        .find(|part| FORBIDDEN.contains(part))?;
    let message = format!("{name:?} says nothing: name it after what it holds, or do not split it");
    Some(Finding::new(&source.path, 1, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grab_bags_are_found() {
        for bad in ["crates/a/src/utils.rs", "crates/a/src/common/mod.rs", "crates/a/src/types.rs"]
        {
            assert_eq!(check(&[Source::new(bad, "")]).len(), 1, "{bad}");
        }
        for good in ["crates/dislog-types/src/lib.rs", "crates/a/src/uncommon.rs"] {
            assert!(check(&[Source::new(good, "")]).is_empty(), "{good}");
        }
    }
}
