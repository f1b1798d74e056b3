//! Checks of the cluster: the version and the clock of the API server, and the CRDs.

use std::collections::BTreeSet;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
    },
    apimachinery::pkg::version::Info,
    jiff::SignedDuration,
};
use kube::Api;

use super::{
    super::{
        error::Error,
        session::{Session, with_timeout},
        terminal::Tone,
        time_format,
    },
    Finding, Report, unless_forbidden,
};
use crate::api::{GROUP, VERSION, crd};

/// The oldest supported minor version of Kubernetes 1.
const OLDEST_MINOR: u32 = 31;

/// A larger clock skew gets a warning.
const SKEW_WARNING: SignedDuration = SignedDuration::from_secs(5);

/// With a larger clock skew, tokens expire noticeably too early or too late.
const SKEW_BROKEN: SignedDuration = SignedDuration::from_secs(60);

/// Checks the version of the API server.
pub fn check_api_server(url: &str, version: &Info) -> Finding {
    let what = format!("API server {url} has version {}", version.git_version);
    // Some providers report a minor version such as `36+`.
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap_or_default();
    if version.major == "1" && minor < OLDEST_MINOR {
        let fix = format!(
            "upgrade the cluster to 1.{OLDEST_MINOR} or newer; older versions do not support the validation rules of the CRDs"
        );
        return Finding::new(Tone::Bad, what, fix);
    }
    Finding::ok(what)
}

/// Checks the clock skew between the API server and this machine.
pub fn check_clock(skew: Option<SignedDuration>) -> Finding {
    let Some(skew) = skew else {
        return Finding::new(
            Tone::Muted,
            "clock skew: the API server sends no Date header",
            "compare `date -u` on this machine and on a node of the cluster, or connect without the proxy that removes the header",
        );
    };
    let tone = match skew.abs() {
        skew if skew > SKEW_BROKEN => Tone::Bad,
        skew if skew > SKEW_WARNING => Tone::Warning,
        _ => return Finding::ok("the clocks of the API server and this machine agree"),
    };
    let side = if skew.is_negative() { "behind" } else { "ahead of" };
    let what = format!(
        "the clock of the API server is {} {side} the clock of this machine",
        time_format::format_duration(skew)
    );
    let fix = "synchronise both clocks with NTP (timedatectl, chronyc tracking); the clocks decide when tokens expire";
    Finding::new(tone, what, fix)
}

/// Checks the CRDs. Returns whether the API server serves PersonalAccessTokens.
pub async fn check_crds(session: &Session, report: &mut Report) -> Result<bool, Error> {
    let version = format!("{GROUP}/{VERSION}");
    let served = match with_timeout(session.client.list_api_group_resources(&version)).await {
        Ok(found) => found.resources.into_iter().map(|one| one.name).collect(),
        Err(error) if error.is_api_status(404) || error.is_api_status(503) => BTreeSet::new(),
        Err(error) => return Err(error),
    };
    let api: Api<CustomResourceDefinition> = Api::all(session.client.clone());
    for (_, expected) in crd::all() {
        let name = expected.metadata.name.clone().unwrap_or_default();
        if !served.contains(&expected.spec.names.plural) {
            let tone = if name == crd::NAME { Tone::Bad } else { Tone::Warning };
            report.add(tone, format!("{name} {VERSION} is not served"), crd::how_to_install(&name));
            continue;
        }
        match unless_forbidden(with_timeout(api.get(&name)).await)? {
            Some(installed) => report.push(compare_crds(&name, &expected, &installed)),
            None => report.ok(format!(
                "{name} {VERSION} is served (fields not checked: you may not get customresourcedefinitions)"
            )),
        }
    }
    Ok(served.contains(crd::PLURAL))
}

/// Compares the fields of an installed CRD with those of this version.
fn compare_crds(name: &str, expected: &CustomResourceDefinition, installed: &CustomResourceDefinition) -> Finding {
    let plugin = env!("CARGO_PKG_VERSION");
    let (expected, installed) = (field_paths(expected), field_paths(installed));
    let missing: Vec<_> = expected.difference(&installed).cloned().collect();
    let extra = installed.difference(&expected).count();
    match (missing.is_empty(), extra) {
        (true, 0) => Finding::ok(format!("{name} {VERSION} is installed, with every field of version {plugin}")),
        (true, extra) => Finding::new(
            Tone::Warning,
            format!("{name} has {extra} fields that this plugin (version {plugin}) does not know"),
            "install the kubectl-pat of the operator's version",
        ),
        (false, _) => Finding::new(
            Tone::Warning,
            format!("{name} is older than this plugin (version {plugin}); missing fields: {}", missing.join(", ")),
            "apply the CRDs of the operator's version with `kubectl apply --server-side -f crds/`, or run `helm upgrade` with crds.enabled",
        ),
    }
}

/// Returns the paths of all fields of a CRD in the version of this plugin.
fn field_paths(crd: &CustomResourceDefinition) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    let versions = crd.spec.versions.iter().filter(|version| version.name == VERSION);
    for schema in versions.filter_map(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref()) {
        for part in ["spec", "status"] {
            let properties = schema.properties.as_ref().and_then(|properties| properties.get(part));
            properties.into_iter().for_each(|property| collect_paths(property, part, &mut paths));
        }
    }
    paths
}

fn collect_paths(schema: &JSONSchemaProps, path: &str, paths: &mut BTreeSet<String>) {
    for (name, property) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        collect_paths(property, &path, paths);
        paths.insert(path);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        collect_paths(item, path, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_has_fix(check: &Finding) {
        assert_eq!(check.fix.is_empty(), check.tone == Tone::Good, "a fix unless it is ok: {check:?}");
    }

    #[test]
    fn old_api_server_is_broken() {
        for (major, minor, tone) in [
            ("1", "30", Tone::Bad),
            ("1", "30+", Tone::Bad),
            ("1", "31", Tone::Good),
            ("1", "36+", Tone::Good),
            ("1", "x", Tone::Bad),
            ("2", "0", Tone::Good),
        ] {
            let info = Info { major: major.into(), minor: minor.into(), git_version: "v".into(), ..Info::default() };
            let check = check_api_server("https://here", &info);
            assert_eq!(check.tone, tone, "{major}.{minor}");
            assert_has_fix(&check);
        }
    }

    #[test]
    fn clock_skew_is_rated_in_both_directions() {
        for (milliseconds, tone, part) in [
            (Some(0), Tone::Good, "agree"),
            (Some(5_000), Tone::Good, "agree"),
            (Some(-5_000), Tone::Good, "agree"),
            (Some(5_001), Tone::Warning, "5s ahead of"),
            (Some(-6_000), Tone::Warning, "6s behind"),
            (Some(60_000), Tone::Warning, "60s ahead of"),
            (Some(60_001), Tone::Bad, "60s ahead of"),
            (Some(-3_600_000), Tone::Bad, "60m behind"),
            (None, Tone::Muted, "no Date header"),
        ] {
            let check = check_clock(milliseconds.map(SignedDuration::from_millis));
            assert!(check.tone == tone && check.what.contains(part), "{milliseconds:?}: {check:?}");
            assert_has_fix(&check);
        }
    }
}
