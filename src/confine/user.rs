//! Dropping privileges: another user and another root directory, after which nothing is left of root's privileges.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::{FromStr, Split};

use anyhow::Context;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, chdir, chroot, getppid, getresgid, getresuid, setgroups, setresgid, setresuid, setuid,
};

use crate::text::{escape, escape_path};

/// A user and optionally a group, by name or number, as on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName {
    user: String,
    group: Option<String>,
}

impl FromStr for UserName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() || group.is_some_and(str::is_empty) {
            return Err("it is not NAME or NAME:GROUP");
        }
        Ok(Self {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        })
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            None => f.write_str(&self.user),
            Some(group) => write!(f, "{}:{group}", self.user),
        }
    }
}

/// A user from the system's database.
#[derive(Debug, Clone)]
pub struct Identity {
    name: UserName,
    user: Uid,
    group: Gid,
}

impl Identity {
    /// Finds a user and its group in the system's files. (Other directories of users are asked by libraries that a
    /// static program cannot load safely; their users have numbers.)
    ///
    /// # Errors
    /// Where there is no such user or group, and where it is root.
    pub fn look_up(name: &UserName) -> anyhow::Result<Self> {
        let failed = || format!("cannot become {}", escape(name.to_string().as_bytes()));
        let (users, groups) = (read(USERS)?, read(GROUPS)?);
        let (user, group) = numbers(name, &users, &groups)
            .map_err(anyhow::Error::msg)
            .with_context(failed)?;
        anyhow::ensure!(user != 0, "{}: that is root", failed());
        Ok(Self {
            name: name.clone(),
            user: Uid::from_raw(user),
            group: Gid::from_raw(group),
        })
    }

    /// The user and its group.
    pub fn numbers(&self) -> (Uid, Gid) {
        (self.user, self.group)
    }

    /// Becomes this user, irrevocably. The parent-death signal is set again, since the kernel clears it when the user
    /// changes.
    ///
    /// # Errors
    /// Where the system does not allow it, or would allow it to be undone.
    pub fn assume(&self) -> anyhow::Result<()> {
        let (failed, parent) = (|| format!("cannot become {}", self.name), getppid());
        let signal = prctl::get_pdeathsig().with_context(failed)?;
        setgroups(&[self.group]).with_context(failed)?;
        setresgid(self.group, self.group, self.group).with_context(failed)?;
        setresuid(self.user, self.user, self.user).with_context(failed)?;
        let (users, groups) = (getresuid()?, getresgid()?);
        let all_changed = [users.real, users.effective, users.saved] == [self.user; 3]
            && [groups.real, groups.effective, groups.saved] == [self.group; 3];
        anyhow::ensure!(
            all_changed && setuid(Uid::from_raw(0)).is_err(),
            "cannot become {}: it could be undone",
            self.name
        );
        if let Some(signal) = signal {
            prctl::set_pdeathsig(signal).with_context(failed)?;
            anyhow::ensure!(
                getppid() == parent,
                "cannot become {}: the parent has ended",
                self.name
            );
        }
        Ok(())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.name, self.user, self.group)
    }
}

/// passwd(5): name, password, number, number of the group.
const USERS: &str = "/etc/passwd";
/// group(5): name, password, number.
const GROUPS: &str = "/etc/group";

fn read(path: &str) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The numbers of a user and its group, or what is wrong with them.
fn numbers(name: &UserName, users: &str, groups: &str) -> Result<(u32, u32), &'static str> {
    let user = entry(users, &name.user);
    let group = match &name.group {
        Some(group) => number(entry(groups, group).and_then(|mut fields| fields.nth(2)))
            .or_else(|| group.parse().ok())
            .ok_or("there is no such group")?,
        None => match user.clone() {
            Some(mut fields) => number(fields.nth(3)).ok_or("its group is not known")?,
            None if name.user.parse::<u32>().is_ok() => return Err("its group is not known"),
            None => return Err("there is no such user"),
        },
    };
    let user = number(user.and_then(|mut fields| fields.nth(2)));
    let user = user.or_else(|| name.user.parse().ok());
    Ok((user.ok_or("there is no such user")?, group))
}

fn number(field: Option<&str>) -> Option<u32> {
    field?.parse().ok()
}

/// The fields of the line with this name, or with this number.
fn entry<'a>(file: &'a str, name: &str) -> Option<Split<'a, char>> {
    let mut lines = file.lines().map(|line| line.split(':'));
    lines
        .clone()
        .find(|fields| fields.clone().next() == Some(name))
        .or_else(|| lines.find(|fields| fields.clone().nth(2) == Some(name)))
}

/// Makes a directory the root directory.
///
/// # Errors
/// As chroot(2).
pub fn change_root(directory: &Path) -> anyhow::Result<()> {
    let failed = || {
        format!(
            "cannot change the root directory to {}",
            escape_path(directory)
        )
    };
    chroot(directory).with_context(failed)?;
    chdir("/").with_context(failed)
}

/// What a path is called from below a root directory.
///
/// # Errors
/// Where it does not lie below it.
pub fn inside(root: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    let failed = || format!("cannot find {}", escape_path(path));
    let root = root
        .canonicalize()
        .with_context(|| format!("cannot find {}", escape_path(root)))?;
    // A file need not be there yet; a directory may be the root itself.
    let (directory, name) = match path.is_dir() {
        true => (path.to_owned(), None),
        false => {
            let name = path.file_name().with_context(failed)?;
            (crate::store::atomic::directory_of(path), Some(name))
        }
    };
    let directory = directory.canonicalize().with_context(failed)?;
    match directory.strip_prefix(&root) {
        Ok(directory) => {
            let directory = Path::new("/").join(directory);
            Ok(name.map_or(directory.clone(), |name| directory.join(name)))
        }
        Err(_) => anyhow::bail!(
            "cannot use {}: it is not below the root directory {}",
            escape_path(path),
            escape_path(&root)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_group_have_names() {
        let parse = |text: &str| text.parse::<UserName>().map(|name| (name.user, name.group));
        assert_eq!(parse("nobody"), Ok(("nobody".into(), None)));
        assert_eq!(parse("1:2"), Ok(("1".into(), Some("2".into()))));
        for wrong in ["", ":", "nobody:", ":nogroup"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let users = "root:x:0:0::/:/bin/sh\n# broken\nme:x:1000:100:Me:/home/me:\n7:x:8:9:::\n";
        let groups = "root:x:0:\nstaff:x:50:me\n";
        let found = |text: &str| numbers(&text.parse().expect("a name"), users, groups);
        for (text, numbers) in [
            ("me", Ok((1000, 100))),
            ("1000", Ok((1000, 100))),
            ("me:staff", Ok((1000, 50))),
            ("me:77", Ok((1000, 77))),
            ("5:6", Ok((5, 6))),
            ("7", Ok((8, 9))),
            ("root", Ok((0, 0))),
            ("you", Err("there is no such user")),
            ("5", Err("its group is not known")),
            ("me:you", Err("there is no such group")),
            ("you:staff", Err("there is no such user")),
        ] {
            assert_eq!(found(text), numbers, "{text}");
        }
    }

    #[test]
    fn what_is_below_a_root_directory_has_a_name_there() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("data")).expect("a directory");
        let inside = |path: &Path| inside(root.path(), path).ok();
        assert_eq!(
            inside(&root.path().join("data/../data/file")),
            Some("/data/file".into())
        );
        assert_eq!(inside(&root.path().join("data")), Some("/data".into()));
        assert_eq!(inside(root.path()), Some("/".into()));
        assert_eq!(inside(&root.path().join("../file")), None);
        assert_eq!(inside(&root.path().join("..")), None);
    }
}
