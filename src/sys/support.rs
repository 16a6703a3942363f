//! What a kernel, a file system or a container's profile lacks.

use nix::errno::Errno;

/// Whether a call failed because it is not there, for this file or at all: then something else does the same. File
/// systems disagree on how to say so, and a profile that denies a call may say anything of this.
///
/// An error of the device (EIO, ENOSPC, EDQUOT, EROFS), of a name or of the rights to it is none of these: a fallback
/// would fail in the same way, or hide it.
pub fn is_unsupported(error: Errno) -> bool {
    matches!(
        error,
        Errno::ENOSYS
            | Errno::EOPNOTSUPP
            | Errno::EINVAL
            | Errno::EPERM
            | Errno::ENOTTY
            | Errno::ENODEV
            | Errno::EXDEV
            | Errno::ENOLCK
            | Errno::EMLINK
    )
}

/// The same of an error of the standard library.
pub fn is_unsupported_io(error: &std::io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|number| is_unsupported(Errno::from_raw(number)))
        || error.kind() == std::io::ErrorKind::Unsupported
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told_from_what_fails() {
        for lacks in [
            Errno::ENOSYS,
            Errno::EOPNOTSUPP,
            Errno::EPERM,
            Errno::EINVAL,
        ] {
            assert!(is_unsupported_io(&lacks.into()), "{lacks}");
        }
        for fails in [
            Errno::ENOSPC,
            Errno::EIO,
            Errno::EACCES,
            Errno::EEXIST,
            Errno::EROFS,
        ] {
            assert!(!is_unsupported_io(&fails.into()), "{fails}");
        }
    }
}
