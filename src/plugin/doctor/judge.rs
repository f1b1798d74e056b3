//! What is to be thought of clocks and versions. Pure: it asks nobody.

use k8s_openapi::{apimachinery::pkg::version::Info, jiff::SignedDuration};

use super::{
    super::{phrase, terminal::Tone},
    Finding,
};

/// The oldest API server that has all that the resource needs.
const OLDEST_MINOR: u32 = 31;

/// A clock that is off by more makes times in specs and status confusing.
const SKEW_NOTICE: SignedDuration = SignedDuration::from_secs(5);

/// A clock that is off by more lets tokens live longer, or die sooner, than they say.
const SKEW_BAD: SignedDuration = SignedDuration::from_secs(60);

/// Whether an API server is new enough.
pub fn api_server(url: &str, version: &Info) -> Finding {
    let what = format!("the API server at {url} is {}", version.git_version);
    // Some clouds write `36+`.
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap_or_default();
    if version.major == "1" && minor < OLDEST_MINOR {
        let fix =
            format!("upgrade the cluster to 1.{OLDEST_MINOR} or newer: older ones lack rules that the resource has");
        return Finding::new(Tone::Bad, what, fix);
    }
    Finding::good(what)
}

/// Whether two clocks agree: by how much the API server's is ahead of this machine's, if it tells.
pub fn clock(skew: Option<SignedDuration>) -> Finding {
    let Some(skew) = skew else {
        return Finding::new(
            Tone::Quiet,
            "whether clocks agree: the API server does not tell its time",
            "compare date -u here with the same on a node of its, or ask past the proxy that takes the header Date away",
        );
    };
    let tone = match skew.abs() {
        skew if skew > SKEW_BAD => Tone::Bad,
        skew if skew > SKEW_NOTICE => Tone::Notice,
        _ => return Finding::good("the API server's clock and this machine's agree"),
    };
    let side = if skew.is_negative() { "behind" } else { "ahead of" };
    let what = format!("the API server's clock is {} {side} this machine's", phrase::span(skew));
    let fix = "set both clocks by NTP (timedatectl, chronyc tracking): tokens live by the operator's and the verifiers' clocks";
    Finding::new(tone, what, fix)
}

/// Whether a Deployment of the operator is of this plugin's version: what its label says, if it has one.
pub fn version(deployment: &str, theirs: Option<&str>, ours: &str) -> Finding {
    match theirs {
        None => Finding::new(
            Tone::Quiet,
            format!("which version Deployment {deployment} is: it has no label app.kubernetes.io/version"),
            "look at the tag of its image, or give it that label: the chart does",
        ),
        Some(theirs) if theirs == ours => {
            Finding::good(format!("Deployment {deployment} is version {theirs}, as this plugin is"))
        }
        Some(theirs) => Finding::new(
            Tone::Notice,
            format!("Deployment {deployment} is version {theirs}, and this plugin is {ours}"),
            format!("install the kubectl-pat of {theirs}, or bring the operator to {ours} (helm upgrade)"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sound(finding: &Finding) {
        assert_eq!(finding.fix.is_empty(), finding.tone == Tone::Good, "a fix for what is not well: {finding:?}");
    }

    #[test]
    fn an_api_server_that_lacks_rules_is_broken() {
        for (major, minor, tone) in [
            ("1", "30", Tone::Bad),
            ("1", "30+", Tone::Bad),
            ("1", "31", Tone::Good),
            ("1", "36+", Tone::Good),
            ("1", "x", Tone::Bad),
            ("2", "0", Tone::Good),
        ] {
            let info = Info { major: major.into(), minor: minor.into(), git_version: "v".into(), ..Info::default() };
            let finding = api_server("https://here", &info);
            assert_eq!(finding.tone, tone, "{major}.{minor}");
            is_sound(&finding);
        }
    }

    #[test]
    fn a_clock_is_judged_by_how_far_it_is_off_to_either_side() {
        for (milliseconds, tone, part) in [
            (Some(0), Tone::Good, "agree"),
            (Some(5_000), Tone::Good, "agree"),
            (Some(-5_000), Tone::Good, "agree"),
            (Some(5_001), Tone::Notice, "5s ahead of"),
            (Some(-6_000), Tone::Notice, "6s behind"),
            (Some(60_000), Tone::Notice, "60s ahead of"),
            (Some(60_001), Tone::Bad, "60s ahead of"),
            (Some(-3_600_000), Tone::Bad, "60m behind"),
            (None, Tone::Quiet, "does not tell"),
        ] {
            let finding = clock(milliseconds.map(SignedDuration::from_millis));
            assert!(finding.tone == tone && finding.what.contains(part), "{milliseconds:?}: {finding:?}");
            is_sound(&finding);
        }
    }

    #[test]
    fn another_version_of_the_operator_is_told_beside_the_plugins_and_none_is_not_known() {
        for (theirs, tone, part) in [
            (Some("0.2.0"), Tone::Good, "0.2.0, as this plugin is"),
            (Some("0.1.9"), Tone::Notice, "0.1.9, and this plugin is 0.2.0"),
            (Some("0.2.1"), Tone::Notice, "0.2.1, and this plugin is 0.2.0"),
            (Some(""), Tone::Notice, "this plugin is 0.2.0"),
            (None, Tone::Quiet, "no label"),
        ] {
            let finding = version("pat-operator/controller", theirs, "0.2.0");
            assert!(finding.tone == tone && finding.what.contains(part), "{theirs:?}: {finding:?}");
            is_sound(&finding);
        }
    }
}
