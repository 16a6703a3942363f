//! Ports at which a peer that only a stranger has named is not looked for: what a client of this network sends there might
//! be taken for something else, and a connect might be taken for an attack.

/// The first port that a program needs no privilege for.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// Ports from 1024 on that browsers do not connect to either (the Fetch standard, "bad port"): H.323, PPTP, NFS, Apple
/// SASL, lockd, ManageSieve, SIP, X11, SANE, IRC and Amanda.
const OF_OTHER_SERVICES: [u16; 19] = [
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669,
    6679, 6697, 10080,
];

/// Whether another service than a peer is to be expected at this port.
pub fn is_of_another_service(port: u16) -> bool {
    port < FIRST_UNPRIVILEGED || OF_OTHER_SERVICES.contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_other_services_are_known_and_those_of_this_program_are_free() {
        for port in [0, 1, 22, 25, 80, 443, 1023, 2049, 6000, 6667, 10080] {
            assert!(is_of_another_service(port), "{port}");
        }
        for port in [1024, 8888, 8889, 9000, 32768, 65535] {
            assert!(!is_of_another_service(port), "{port}");
        }
    }
}
