//! Landlock: which paths and ports a process may use. Descriptors that are open already are not affected.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use std::path::Path;

use super::Role;

/// The newest ABI version whose rights are used here; on an older kernel, those that it supports.
const NEWEST: ABI = ABI::V6;

/// Restricts this process and its children to the paths and ports of the role, and forbids signals to processes
/// outside.
///
/// # Errors
/// Where a directory cannot be opened, or the kernel has too many layers on this process.
pub fn restrict(role: Role<'_>) -> anyhow::Result<()> {
    let mut ports = AccessNet::BindTcp | AccessNet::ConnectTcp;
    if let Role::Downloader { .. } | Role::Reporter { asks: true, .. } | Role::Surveyor = role {
        // Their children connect to whom they are told, and restrict themselves to that.
        ports = AccessNet::BindTcp.into();
    }
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(ports)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let ruleset = match role {
        Role::Server { .. } | Role::Verifier { .. } | Role::Hasher | Role::Surveyor => ruleset,
        Role::Announcer { ports } => ports.iter().try_fold(ruleset, connect)?,
        Role::Worker { port } | Role::Asker { port } => connect(ruleset, &port)?,
        Role::Downloader { directory } => beneath(ruleset, directory)?,
        Role::Reporter {
            directory: None, ..
        } => ruleset,
        Role::Reporter {
            directory: Some(directory),
            ..
        } => ruleset.add_rule(PathBeneath::new(directory, AccessFs::RemoveFile))?,
        Role::Outside { writes: None } => ruleset,
        Role::Reader => {
            let rights = AccessFs::ReadFile | AccessFs::ReadDir;
            ruleset.add_rule(PathBeneath::new(PathFd::new("/")?, rights))?
        }
        Role::Outside {
            writes: Some(directory),
        } => beneath(ruleset, directory)?,
    };
    ruleset.restrict_self()?;
    Ok(())
}

fn connect(ruleset: RulesetCreated, port: &u16) -> Result<RulesetCreated, RulesetError> {
    ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))
}

/// The rights to create, write, rename and remove files in a directory.
fn beneath(ruleset: RulesetCreated, directory: &Path) -> anyhow::Result<RulesetCreated> {
    let rights: BitFlags<AccessFs> = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::Refer;
    Ok(ruleset.add_rule(PathBeneath::new(PathFd::new(directory)?, rights))?)
}
