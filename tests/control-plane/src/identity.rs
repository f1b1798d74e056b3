//! Users, ServiceAccounts and the administrator, as the API server sees them.

/// A user with groups, as the API server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    groups: Vec<String>,
}

impl Identity {
    /// A user. The API server adds the group `system:authenticated`.
    pub fn user(name: impl Into<String>, groups: &[&str]) -> Self {
        Self { name: name.into(), groups: groups.iter().map(|group| (*group).to_owned()).collect() }
    }

    /// The ServiceAccount `name` in `namespace`. The object need not exist.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::user(
            format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
        )
    }

    /// The administrator, who may do everything and is exempt from priority and fairness.
    pub fn admin() -> Self {
        Self::user("admin", &["system:masters"])
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's groups.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }
}
