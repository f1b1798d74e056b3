//! The official release files of the control plane's programs, and the digests that they must have.
//!
//! A program is downloaded only if its digest for this platform is pinned here. To move to another version, change
//! `go.mod`, then [`RELEASES`]; a test compares the two. Take digests from the project's own checksum file.

use std::env;

use crate::Binary;

/// The environment variable that replaces the official hosts by a mirror, or switches downloads off.
pub(crate) const MIRROR_VARIABLE: &str = "CONTROL_PLANE_MIRROR";

/// A release file that holds one program, on every platform it is pinned for.
struct Release {
    binary: Binary,
    version: &'static str,
    /// The URL; `{version}` and `{arch}` are filled in.
    url: &'static str,
    /// The path in the `.tar.gz` archive, or `None` if the file is the program itself.
    member: Option<&'static str>,
    /// SHA-256 of the file at the URL, by architecture (Linux).
    sha256: &'static [(&'static str, &'static str)],
}

const KUBERNETES_VERSION: &str = "v1.36.3";

static RELEASES: &[Release] = &[
    Release {
        binary: Binary::Etcd,
        version: "v3.6.8",
        url: "https://github.com/etcd-io/etcd/releases/download/{version}/etcd-{version}-linux-{arch}.tar.gz",
        member: Some("etcd-{version}-linux-{arch}/etcd"),
        sha256: &[
            ("amd64", "cf9cfe91a4856cb90eed9c99e6aee4b708db2c7888b88a6f116281f04b0ea693"),
            ("arm64", "438f56a700d17ce761510a3e63e6fa5c1d587b2dd4d7a22c179c09a649366760"),
        ],
    },
    Release {
        binary: Binary::KubeApiserver,
        version: KUBERNETES_VERSION,
        url: "https://dl.k8s.io/release/{version}/bin/linux/{arch}/kube-apiserver",
        member: None,
        sha256: &[
            ("amd64", "1f217d397234a6d065da663c6e086fdb02c0f0de97a0758ff3e6f3956f4ef8ab"),
            ("arm64", "16001b9d35d23634c361a1e2b7b0fc7abe186984af697ef7a869c8c8cded78b7"),
        ],
    },
    Release {
        binary: Binary::KubeControllerManager,
        version: KUBERNETES_VERSION,
        url: "https://dl.k8s.io/release/{version}/bin/linux/{arch}/kube-controller-manager",
        member: None,
        sha256: &[
            ("amd64", "7edfe976d5a06c7a702d653e914095f4a732a04bb2139115b6a6eba6a9b781c7"),
            ("arm64", "27868a5c822824945b93f2d8a724a5dcd99affc68b47230ae766bff8795bbb84"),
        ],
    },
    Release {
        binary: Binary::Kubectl,
        version: KUBERNETES_VERSION,
        url: "https://dl.k8s.io/release/{version}/bin/linux/{arch}/kubectl",
        member: None,
        sha256: &[
            ("amd64", "ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336"),
            ("arm64", "3d86f24401c41ae5a46ac50eef8865fe891d3647d324a0836f6c63757a126e62"),
        ],
    },
    Release {
        binary: Binary::Helm,
        version: "v4.3.0",
        url: "https://get.helm.sh/helm-{version}-linux-{arch}.tar.gz",
        member: Some("linux-{arch}/helm"),
        sha256: &[
            ("amd64", "86584a54def73570558f66f5111cc53dfed56689637ae32c1201205d494f54fb"),
            ("arm64", "31c5794dd55c66a51e6b7d2e2ac7a114ae8b1de41ff1d9ba51748ac973b06a08"),
        ],
    },
];

/// A release file to download, and the program in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The URL.
    pub url: String,
    /// The path in the `.tar.gz` archive, or `None` if the file is the program itself.
    pub member: Option<String>,
    /// SHA-256 of the file, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// Where to download from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mirror {
    /// The official hosts.
    Official,
    /// Below this URL, with the official host as the first part of the path: `<base>/dl.k8s.io/release/…`.
    Base(String),
    /// Nowhere.
    Off,
}

impl Mirror {
    /// Reads `CONTROL_PLANE_MIRROR`.
    pub(crate) fn from_env() -> Self {
        env::var(MIRROR_VARIABLE).map_or(Self::Official, |value| Self::parse(&value))
    }

    fn parse(value: &str) -> Self {
        match value.trim().trim_end_matches('/') {
            "" | "off" => Self::Off,
            base => Self::Base(base.to_owned()),
        }
    }
}

/// Returns the release file of a program for this platform, if its digest is pinned and downloads are not off.
pub(crate) fn source(binary: Binary, mirror: &Mirror) -> Option<Source> {
    source_for(binary, mirror, env::consts::OS, env::consts::ARCH)
}

fn source_for(binary: Binary, mirror: &Mirror, os: &str, arch: &str) -> Option<Source> {
    let arch = match (os, arch) {
        ("linux", "x86_64") => "amd64",
        ("linux", "aarch64") => "arm64",
        _ => return None,
    };
    let release = RELEASES.iter().find(|release| release.binary == binary)?;
    let (_, sha256) = release.sha256.iter().find(|(pinned, _)| *pinned == arch)?;
    let fill = |template: &str| template.replace("{version}", release.version).replace("{arch}", arch);
    let official = fill(release.url);
    let url = match mirror {
        Mirror::Official => official,
        Mirror::Base(base) => format!("{base}/{}", official.trim_start_matches("https://")),
        Mirror::Off => return None,
    };
    Some(Source { url, member: release.member.map(fill), sha256: (*sha256).to_owned() })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Mirror, RELEASES, source_for};
    use crate::{Assets, Binary};

    #[test]
    fn release_versions_are_those_of_the_go_modules() {
        for release in RELEASES {
            assert_eq!(release.version, release.binary.version(), "{}", release.binary);
        }
    }

    #[test]
    fn every_digest_is_a_sha256_and_pinned_once() {
        let digests: Vec<_> = RELEASES.iter().flat_map(|release| release.sha256).collect();
        let is_hex = |digest: &str| digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        assert!(digests.iter().all(|(_, digest)| digest.len() == 64 && is_hex(digest)));
        assert_eq!(digests.iter().map(|(_, digest)| digest).collect::<HashSet<_>>().len(), digests.len());
    }

    #[test]
    fn control_plane_is_pinned_for_amd64_and_arm64() {
        for binary in Assets::CONTROL_PLANE {
            for arch in ["x86_64", "aarch64"] {
                assert!(source_for(binary, &Mirror::Official, "linux", arch).is_some(), "{binary} {arch}");
            }
        }
    }

    #[test]
    fn program_without_a_pinned_digest_has_no_source() {
        assert_eq!(source_for(Binary::Kubectl, &Mirror::Official, "macos", "aarch64"), None);
        assert_eq!(source_for(Binary::Kubectl, &Mirror::Official, "linux", "riscv64"), None);
        assert_eq!(source_for(Binary::Istiod, &Mirror::Official, "linux", "x86_64"), None);
    }

    #[test]
    fn mirror_keeps_the_official_host_in_the_path() {
        let mirror = Mirror::parse("http://127.0.0.1:8080/files/");
        let etcd = source_for(Binary::Etcd, &mirror, "linux", "x86_64").unwrap();
        assert_eq!(
            etcd.url,
            format!(
                "http://127.0.0.1:8080/files/github.com/etcd-io/etcd/releases/download/{v}/etcd-{v}-linux-amd64.tar.gz",
                v = Binary::Etcd.version()
            )
        );
        assert_eq!(etcd.member.unwrap(), format!("etcd-{}-linux-amd64/etcd", Binary::Etcd.version()));
    }

    #[test]
    fn empty_mirror_and_off_switch_downloads_off() {
        for value in ["", " ", "off"] {
            assert_eq!(source_for(Binary::Etcd, &Mirror::parse(value), "linux", "x86_64"), None, "{value:?}");
        }
    }
}
