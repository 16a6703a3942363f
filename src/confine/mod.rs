//! Confinement: what a process can still do after strangers have taken it over.
//!
//! A process that faces strangers is confined once its sockets and files are open, and so is everything that it forks:
//! no connection pays for it.
//!
//! | layer | what it takes away |
//! |---|---|
//! | [`user`] | the rights of root, and all files but those below a directory (`--user`, `--chroot`) |
//! | [`limits`] | dumps of memory, files that grow, memory without end |
//! | no new privileges | what set-user-id programs could give back |
//! | [`landlock`] | paths and ports, but those of the role; processes outside |
//! | [`seccomp`] | system calls, but those of the role |
//!
//! What a confined process may not do itself, a helper does that does nothing else: [`outside`], [`reader`]. Helpers
//! are started by a [`keeper`] that was forked before.

pub mod keeper;
pub mod landlock;
pub mod limits;
pub mod outside;
pub mod reader;
pub mod seccomp;
pub mod user;

use std::fmt;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use nix::unistd::{Gid, Uid};

use crate::faults;
use crate::sys;
use user::{Identity, UserName};

/// Options of all commands that face strangers.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfineOptions {
    /// Confine the processes that face strangers
    #[arg(
        help_heading = "Sandbox",
        long,
        value_enum,
        default_value_t,
        value_name = "WHEN"
    )]
    pub sandbox: Sandbox,
    /// Become this user once sockets are open (root only)
    #[arg(help_heading = "Sandbox", long, value_name = "NAME[:GROUP]")]
    pub user: Option<UserName>,
    /// See no files but those below this directory, once sockets are open (root only)
    #[arg(help_heading = "Sandbox", long, value_name = "DIR")]
    pub chroot: Option<PathBuf>,
}

/// Whether processes are confined.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// As far as the kernel can
    #[default]
    Auto,
    /// All of it, or do not begin
    Require,
    /// Not at all
    Off,
}

/// The role of a process, which determines what it is allowed to do.
#[derive(Debug, Clone, Copy)]
pub enum Role<'a> {
    /// Accepts and serves connections: no paths, no outgoing connections.
    Server {
        /// In threads.
        threads: bool,
        /// It makes shared memory, also later.
        tables: bool,
        /// It hands that over through this descriptor.
        tells: Option<RawFd>,
    },
    /// Asks a tracker: no paths, and no other ports.
    Announcer {
        /// The tracker's.
        ports: &'a [u16],
    },
    /// Hashes an open file in threads.
    Verifier {
        /// It copies another one to it first.
        writes: bool,
    },
    /// Owns a download: renames the file when it is complete, and forks workers, which may connect.
    Downloader {
        /// The data file's.
        directory: &'a Path,
    },
    /// Downloads from one peer: no paths, and no other ports.
    Worker {
        /// The peer's.
        port: u16,
    },
    /// Hashes an open file in a single thread.
    Hasher,
    /// Starts the processes that report a server's status, and removes their socket.
    Reporter {
        /// From there.
        directory: Option<BorrowedFd<'a>>,
        /// It starts a surveyor as well.
        asks: bool,
    },
    /// Forks askers.
    Surveyor,
    /// Asks one peer for something other than blocks, and writes no files: no paths, and no other ports.
    Asker {
        /// The peer's.
        port: u16,
    },
    /// Reads files on behalf of a confined process.
    Reader,
    /// Performs file operations on behalf of a confined process.
    Outside {
        /// It may write in this directory.
        writes: Option<&'a Path>,
    },
}

/// The Landlock ABI version that introduced TCP ports.
const LANDLOCK_TCP: u32 = 4;

/// How this program's processes are confined.
#[derive(Debug, Clone)]
pub struct Confinement {
    sandbox: Sandbox,
    /// Whether seccomp filters are available.
    seccomp: bool,
    /// The Landlock ABI version, or 0.
    landlock: u32,
    user: Option<Identity>,
    chroot: Option<PathBuf>,
}

impl Confinement {
    /// The confinement that the options ask for, as far as this kernel supports it.
    ///
    /// # Errors
    /// Where it cannot do all that is required, where there is no such user, and where only root could do what is asked
    /// for.
    pub fn new(options: &ConfineOptions) -> anyhow::Result<Self> {
        let on = options.sandbox != Sandbox::Off;
        let lacks = |layer| faults::wants("kernel", layer);
        let seccomp = on && !lacks("no-seccomp") && sys::seccomp::is_available();
        let landlock = match on && !lacks("no-landlock") {
            true => sys::landlock::version(),
            false => 0,
        };
        if options.sandbox == Sandbox::Require {
            let refuse =
                |what: &str| anyhow::bail!("cannot confine as --sandbox=require wants: {what}");
            match landlock {
                0 => refuse("this kernel has no Landlock, or does not let it be used")?,
                1..LANDLOCK_TCP => refuse("the Landlock of this kernel does not know TCP ports")?,
                _ => {}
            }
            if !seccomp {
                refuse("this kernel has no filters of system calls, or does not let them be used")?;
            }
        }
        Ok(Self {
            sandbox: options.sandbox,
            seccomp,
            landlock,
            user: options.user.as_ref().map(Identity::look_up).transpose()?,
            chroot: options.chroot.clone(),
        })
        .and_then(Self::checked)
    }

    fn checked(self) -> anyhow::Result<Self> {
        let root = nix::unistd::geteuid().is_root();
        anyhow::ensure!(
            self.user.is_none() || root,
            "cannot change the user: only root can"
        );
        anyhow::ensure!(
            self.chroot.is_none() || root,
            "cannot change the root directory: only root can"
        );
        Ok(self)
    }

    /// The user that this process switches to, if any.
    pub fn user(&self) -> Option<(Uid, Gid)> {
        self.user.as_ref().map(Identity::numbers)
    }

    /// Drops root privileges irrevocably, if that was asked for.
    ///
    /// # Errors
    /// Where the system does not allow it, or would allow it to be undone.
    pub fn become_user(&self) -> anyhow::Result<()> {
        self.user.as_ref().map_or(Ok(()), Identity::assume)
    }

    /// Changes the root directory and drops root privileges, if that was asked for.
    ///
    /// # Errors
    /// As [`Confinement::become_user`].
    pub fn leave(&self) -> anyhow::Result<()> {
        if let Some(directory) = &self.chroot {
            user::change_root(directory)?;
        }
        self.become_user()
    }

    /// Translates a path to what it is called after [`Confinement::leave`].
    ///
    /// # Errors
    /// Where it lies outside the new root directory.
    pub fn inside(&self, path: &Path) -> anyhow::Result<PathBuf> {
        match &self.chroot {
            None => Ok(path.to_owned()),
            Some(root) => user::inside(root, path),
        }
    }

    /// Confines this process, which must be single-threaded, and its future children.
    ///
    /// # Errors
    /// Where a layer that the kernel supports cannot be set up. Unless confinement is required, that is only logged.
    pub fn enter(&self, role: Role<'_>) -> anyhow::Result<()> {
        if self.sandbox == Sandbox::Off {
            return Ok(());
        }
        // Later it cannot be seen.
        self.go_on(sys::fork::assert_single_threaded().map_err(Into::into))?;
        // A layer that this system denies is no reason to go without the others.
        self.go_on(limits::apply(role).context("cannot set limits"))?;
        self.go_on(nix::sys::prctl::set_no_new_privs().context("cannot give up new privileges"))?;
        if self.landlock > 0 {
            self.go_on(landlock::restrict(role).context("cannot use Landlock"))?;
        }
        if self.seccomp {
            self.go_on(seccomp::filter(role).context("cannot filter system calls"))?;
        }
        Ok(())
    }

    /// Says what could not be set up of a layer; that is an error only where all of them are required.
    fn go_on(&self, layer: anyhow::Result<()>) -> anyhow::Result<()> {
        match layer {
            Err(error) if self.sandbox == Sandbox::Auto => {
                log::warn!("cannot confine this process: {error:#}; it goes on");
                Ok(())
            }
            layer => layer.context("cannot confine this process"),
        }
    }

    /// Confines a child, then runs `life`; returns the exit status.
    pub fn confined(&self, role: Role<'_>, life: impl FnOnce() -> u8) -> u8 {
        match self.enter(role) {
            Ok(()) => life(),
            Err(error) => {
                crate::logging::complain(&error);
                1
            }
        }
    }

    /// For a process that faces no strangers, but starts those that do: it can gain no new privileges.
    ///
    /// # Errors
    /// As prctl(2).
    pub fn gain_nothing(&self) -> anyhow::Result<()> {
        if self.sandbox != Sandbox::Off {
            nix::sys::prctl::set_no_new_privs().context("cannot give up new privileges")?;
        }
        Ok(())
    }
}

/// What is in force, for the log.
impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sandbox == Sandbox::Off {
            f.write_str("sandbox: off")?;
        } else {
            f.write_str("sandbox: no new privileges, limits")?;
            match self.landlock {
                0 => f.write_str(", no Landlock (the kernel has none)")?,
                1..LANDLOCK_TCP => write!(f, ", Landlock {} (no TCP ports)", self.landlock)?,
                version => write!(f, ", Landlock {version}")?,
            }
            f.write_str(match self.seccomp {
                true => ", system calls filtered",
                false => ", system calls not filtered (the kernel cannot)",
            })?;
        }
        if let Some(user) = &self.user {
            write!(f, "; user {user}")?;
        }
        if let Some(root) = &self.chroot {
            write!(f, "; root directory {}", crate::text::escape_path(root))?;
        }
        Ok(())
    }
}
