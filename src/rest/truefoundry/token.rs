//! A token in TrueFoundry's format: a virtual account with a manifest. All published clients accept it, older and newer.

use k8s_openapi::jiff::SignedDuration;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    api::{NotificationTarget, OwnerKind, Time},
    rest::{
        model::{TokenItem, TokenItemCredential},
        store::OwnerEntry,
        timestamp,
    },
};

/// The type of the virtual account.
const TYPE: &str = "personal-access-token";

const MANIFEST_TYPE: &str = "virtual-account";

/// The kind of all tokens of this server.
const TOKEN_TYPE: &str = "opaque";

/// The unit of intervals in a manifest.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundryToken<'a> {
    /// The id: 32 hexadecimal digits.
    id: String,
    /// The name.
    name: &'a str,
    /// The type: `personal-access-token`.
    r#type: &'static str,
    /// The tenant.
    tenant_name: &'a str,
    /// The tenant's only account.
    account_id: &'a str,
    /// The settings.
    manifest: TruefoundryManifest<'a>,
    /// The Secret that holds the token, as `<tenant>:<name>`; `null` if none does.
    #[serde(rename = "secret_fqn")]
    secret_fqn: Option<String>,
    /// The owner.
    created_by_subject: &'a TruefoundrySubject,
    /// The owner's id.
    created_by: &'a str,
    /// The time of creation.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// The time of the last change.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    /// The time of the last use; `null` if never used.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_accessed_at: Option<Time>,
    /// The time of the next rotation; `null` if there is none.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    next_scheduled_rotation: Option<Time>,
    /// Whether the token has expired or was revoked.
    is_expired: bool,
    /// The id of the newest live credential; `null` if there is none.
    #[schema(required = true)]
    jwt_id: Option<&'a str>,
    /// The live credentials, newest first.
    jwts: Vec<TruefoundryJwt<'a>>,
}

/// The settings of a token.
#[derive(Serialize, ToSchema)]
pub struct TruefoundryManifest<'a> {
    /// The name.
    name: &'a str,
    /// The type: `virtual-account`.
    r#type: &'static str,
    /// The expiry; `null` for never.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    expiration_date: Option<Time>,
    /// Permissions on single resources.
    permissions: Vec<TruefoundryPermission<'a>>,
    /// The rotation; `null` if there is none.
    #[schema(required = true)]
    auto_rotate: Option<TruefoundryAutoRotate<'a>>,
    /// The recipients of rotation notifications; `null` for none.
    #[schema(required = true)]
    notification_target: Option<TruefoundryNotificationTarget<'a>>,
    /// The Secret that holds the token; the same as outside of the manifest.
    #[schema(required = true)]
    secret_fqn: Option<String>,
    /// The kind of token: `opaque`.
    token_type: &'static str,
}

/// A permission on one resource.
#[derive(Serialize, ToSchema)]
struct TruefoundryPermission<'a> {
    /// The resource's full name.
    resource_fqn: &'a str,
    /// The kind of the resource.
    resource_type: &'a str,
    /// The role on it.
    role_id: &'a str,
}

/// The rotation of a token.
#[derive(Serialize, ToSchema)]
struct TruefoundryAutoRotate<'a> {
    /// The rotation interval in days, rounded up.
    auto_rotate_interval: i64,
    /// The grace period of the previous token in days, rounded up.
    grace_period: i64,
    /// The recipients of rotation notifications; `null` for none.
    #[schema(required = true)]
    notification_target: Option<TruefoundryNotificationTarget<'a>>,
}

/// The recipients of notifications.
#[derive(Clone, Copy, Serialize, ToSchema)]
struct TruefoundryNotificationTarget<'a> {
    /// The type: `email`.
    r#type: &'static str,
    /// The channel's name; empty for none.
    notification_channel: &'a str,
    /// The email addresses.
    to_emails: &'a [String],
}

/// An owner of tokens.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundrySubject {
    /// The owner's id.
    pub subject_id: String,
    /// The kind of owner: `user` or `serviceaccount`.
    pub subject_type: &'static str,
    /// The email, or the name if there is no email.
    pub subject_slug: String,
    /// The display name.
    pub subject_display_name: String,
}

/// A credential.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundryJwt<'a> {
    /// The public id, which is part of the token.
    id: &'a str,
    /// The kind of owner: `user` or `serviceaccount`.
    subject_type: &'static str,
    /// The owner's id.
    subject_id: &'a str,
    /// Empty.
    metadata: TruefoundryNothing,
    /// The expiry; in the year 9999 for never.
    #[serde(serialize_with = "expiry_or_never")]
    #[schema(value_type = String, format = DateTime)]
    expiry: Option<Time>,
    /// The time of issue.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// The time of issue.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    /// The kind of token: `opaque`.
    token_type: &'static str,
}

/// An empty object.
#[derive(Serialize, ToSchema)]
pub struct TruefoundryNothing {}

impl TruefoundrySubject {
    /// Shows an owner.
    pub fn of(entry: &OwnerEntry) -> Self {
        let name = &entry.owner.name;
        Self {
            subject_id: entry.id.clone(),
            subject_type: match entry.owner.kind {
                OwnerKind::User => "user",
                OwnerKind::VirtualAccount => "serviceaccount",
            },
            subject_slug: entry.spec.email.as_ref().unwrap_or(name).clone(),
            subject_display_name: entry.spec.display_name.as_ref().unwrap_or(name).clone(),
        }
    }
}

impl<'a> TruefoundryToken<'a> {
    /// Shows a token at this time. The subject is its owner.
    pub fn of(item: &'a TokenItem, subject: &'a TruefoundrySubject, tenant: &'a str, now: Time) -> Self {
        let secret_fqn = item.secret_name.as_ref().map(|secret| format!("{tenant}:{secret}"));
        let jwts: Vec<_> = live(item, now).map(|credential| jwt(item, credential, subject)).collect();
        let target = item.notification_target.as_ref().map(TruefoundryNotificationTarget::of);
        Self {
            id: item.id.to_string(),
            name: &item.display_name,
            r#type: TYPE,
            tenant_name: tenant,
            account_id: tenant,
            manifest: TruefoundryManifest {
                name: &item.display_name,
                r#type: MANIFEST_TYPE,
                expiration_date: item.expires_at(),
                permissions: permissions(item),
                auto_rotate: auto_rotate(item, target),
                notification_target: target,
                secret_fqn: secret_fqn.clone(),
                token_type: TOKEN_TYPE,
            },
            secret_fqn,
            created_by_subject: subject,
            created_by: &subject.subject_id,
            created_at: item.created_at,
            updated_at: item.updated_at,
            last_accessed_at: item.last_used_at,
            next_scheduled_rotation: item.next_rotation_at,
            // The clients know no other state of a token that is not accepted.
            is_expired: item.revoked || item.is_expired(now),
            jwt_id: jwts.first().map(|jwt| jwt.id),
            jwts,
        }
    }
}

impl<'a> TruefoundryNotificationTarget<'a> {
    fn of(target: &'a NotificationTarget) -> Self {
        Self {
            r#type: "email",
            notification_channel: target.channel.as_deref().unwrap_or_default(),
            to_emails: &target.recipients,
        }
    }
}

/// Returns the credentials that are valid at this time, newest first.
pub fn live(item: &TokenItem, now: Time) -> impl Iterator<Item = &TokenItemCredential> {
    item.credentials.iter().filter(move |credential| {
        let TokenItemCredential { id, issued_at, expires_at } = credential;
        item.terms.judge_fields(id.as_str(), *issued_at, *expires_at, now).is_valid()
    })
}

fn jwt<'a>(
    item: &TokenItem,
    credential: &'a TokenItemCredential,
    subject: &'a TruefoundrySubject,
) -> TruefoundryJwt<'a> {
    TruefoundryJwt {
        id: credential.id.as_str(),
        subject_type: subject.subject_type,
        subject_id: &subject.subject_id,
        metadata: TruefoundryNothing {},
        expiry: [credential.expires_at, item.expires_at()].into_iter().flatten().min(),
        created_at: credential.issued_at,
        updated_at: credential.issued_at,
        token_type: TOKEN_TYPE,
    }
}

fn permissions(item: &TokenItem) -> Vec<TruefoundryPermission<'_>> {
    let shown = item.permissions.iter().map(|permission| TruefoundryPermission {
        resource_fqn: &permission.resource_fqn,
        resource_type: &permission.resource_type,
        role_id: &permission.role_id,
    });
    shown.collect()
}

fn auto_rotate<'a>(
    item: &TokenItem,
    notification_target: Option<TruefoundryNotificationTarget<'a>>,
) -> Option<TruefoundryAutoRotate<'a>> {
    let interval = item.rotation_interval?;
    // The resource's default.
    let grace = item.grace_period.unwrap_or_else(|| DAY.min(interval / 2));
    Some(TruefoundryAutoRotate { auto_rotate_interval: days(interval), grace_period: days(grace), notification_target })
}

/// Rounds up to whole days, at least one: the clients know no other unit.
fn days(length: SignedDuration) -> i64 {
    let (seconds, day) = (length.as_secs(), DAY.as_secs());
    (seconds / day + i64::from(seconds % day > 0)).max(1)
}

fn expiry_or_never<S: Serializer>(end: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match end {
        Some(end) => end.serialize(serializer),
        None => serializer.serialize_str(timestamp::NEVER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_rounded_up() {
        for (seconds, whole) in [(10, 1), (86_400, 1), (86_401, 2), (30 * 86_400, 30)] {
            assert_eq!(days(SignedDuration::from_secs(seconds)), whole, "{seconds} s");
        }
    }
}
