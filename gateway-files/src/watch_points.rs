//! What a path leads through: every directory in which a change could make it lead elsewhere.
//! In: a path. Out: pairs of a directory and a name in it. Reads links, never a file.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use gateway_core::limits;

/// One name that is looked up on the way to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchPoint {
    /// The directory, free of links.
    pub directory: PathBuf,
    /// The name looked up in it: a file, a link, or a directory.
    pub name: OsString,
    /// Whether it is the last name of the path or of a link, and so may be the file itself.
    pub is_last: bool,
}

/// The watch points from the root to where `path` leads at this moment, through every link. They end at a name that does
/// not exist, because that is where it will appear.
pub fn watch_points(path: &Path) -> Vec<WatchPoint> {
    // An empty path is no file, and nothing to look for either.
    let Ok(path) = std::path::absolute(path) else {
        return Vec::new();
    };
    let mut points = Vec::new();
    let mut directory = PathBuf::from("/");
    let mut names = VecDeque::new();
    prepend(&path, &mut names);
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        if name == ".." {
            directory.pop();
            continue;
        }
        let here = directory.join(&name);
        points.push(WatchPoint {
            directory: directory.clone(),
            name,
            is_last: names.is_empty(),
        });
        match fs::read_link(&here) {
            Ok(target) => {
                links += 1;
                if links > limits::LINKS_MAX {
                    break;
                }
                if target.is_absolute() {
                    directory = PathBuf::from("/");
                }
                prepend(&target, &mut names);
            }
            // No link: a file or a directory, or nothing at all, and then the next point is the last.
            Err(_) if here.symlink_metadata().is_ok() => directory = here,
            Err(_) => break,
        }
    }
    points
}

/// Puts the names of `path` before those that are still to come.
fn prepend(path: &Path, names: &mut VecDeque<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => names.push_front(name.to_owned()),
            Component::ParentDir => names.push_front("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// The names that are looked up in `folder` or below it, with the directories relative to it.
    fn looked_up(folder: &Path, path: &str) -> Vec<(String, String)> {
        let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
        watch_points(&folder.join(path))
            .into_iter()
            .filter_map(|point| {
                let directory = point.directory.strip_prefix(folder).ok()?.as_os_str();
                Some((text(directory), text(&point.name)))
            })
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(directory, name): &(&str, &str)| ((*directory).into(), (*name).into());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn every_link_adds_the_directory_it_stands_in() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir_all(folder.join("mount/..one")).unwrap();
        fs::write(folder.join("mount/..one/tls.crt"), "").unwrap();
        symlink("..one", folder.join("mount/..data")).unwrap();
        symlink("..data/tls.crt", folder.join("mount/tls.crt")).unwrap();
        symlink(folder.join("mount"), folder.join("link")).unwrap();
        assert_eq!(
            looked_up(&folder, "link/tls.crt"),
            pairs(&[
                ("", "link"),
                ("", "mount"),
                ("mount", "tls.crt"),
                ("mount", "..data"),
                ("mount", "..one"),
                ("mount/..one", "tls.crt"),
            ])
        );
    }

    #[test]
    fn the_way_ends_where_something_is_missing_or_leads_in_a_circle() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let missing = pairs(&[("", "absent")]);
        assert_eq!(looked_up(&folder, "absent/below/file"), missing);
        symlink("../gone", folder.join("dangling")).unwrap();
        assert_eq!(
            looked_up(&folder, "dangling"),
            pairs(&[("", "dangling")]),
            "what it names lies above"
        );
        symlink("b", folder.join("a")).unwrap();
        symlink("a", folder.join("b")).unwrap();
        assert_eq!(looked_up(&folder, "a").len(), limits::LINKS_MAX + 1);
    }
}
