//! A token as TrueFoundry's clients read it: a virtual account with a manifest. One form that every published client takes, older and
//! newer.

use k8s_openapi::jiff::SignedDuration;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    api::{NotificationTarget, OwnerKind, Time},
    rest::{item::Item, item::ItemCredential, owners::OwnerEntry, when},
};

/// What a token is among virtual accounts.
const TYPE: &str = "personal-access-token";

/// What the clients call every manifest of this kind.
const MANIFEST_TYPE: &str = "virtual-account";

/// What kind all tokens of this server are.
const TOKEN_TYPE: &str = "opaque";

/// Where a manifest has its days.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundryToken<'a> {
    /// Its id: 32 hexadecimal digits.
    id: String,
    /// Its name.
    name: &'a str,
    /// What it is: `personal-access-token`.
    r#type: &'static str,
    /// The tenant.
    tenant_name: &'a str,
    /// The account that it is for: the tenant's only one.
    account_id: &'a str,
    /// What is laid down for it.
    manifest: TruefoundryManifest<'a>,
    /// The Secret that holds it, as `<tenant>:<name>`; `null` if none does.
    #[serde(rename = "secret_fqn")]
    secret_fqn: Option<String>,
    /// Its owner.
    created_by_subject: &'a TruefoundrySubject,
    /// Its owner's id.
    created_by: &'a str,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    /// When it was last used; `null` if never.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_accessed_at: Option<Time>,
    /// When it will be replaced next; `null` if it is not rotated.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    next_scheduled_rotation: Option<Time>,
    /// Whether it has ended: it is past its end, or it was revoked.
    is_expired: bool,
    /// The id of the newest credential; `null` if none is live.
    #[schema(required = true)]
    jwt_id: Option<&'a str>,
    /// The credentials that are live, newest first.
    jwts: Vec<TruefoundryJwt<'a>>,
}

/// What is laid down for a token.
#[derive(Serialize, ToSchema)]
pub struct TruefoundryManifest<'a> {
    /// Its name.
    name: &'a str,
    /// `virtual-account`.
    r#type: &'static str,
    /// When it ends; `null`: never.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    expiration_date: Option<Time>,
    /// What it may do with single resources.
    permissions: Vec<TruefoundryPermission<'a>>,
    /// How it is rotated; `null` if it is not.
    #[schema(required = true)]
    auto_rotate: Option<TruefoundryAutoRotate<'a>>,
    /// Whom to tell of rotations; `null`: nobody.
    #[schema(required = true)]
    notification_target: Option<TruefoundryNotificationTarget<'a>>,
    /// The Secret that holds it; the same as beside the manifest.
    #[schema(required = true)]
    secret_fqn: Option<String>,
    /// `opaque`.
    token_type: &'static str,
}

/// A right to one resource.
#[derive(Serialize, ToSchema)]
struct TruefoundryPermission<'a> {
    /// The resource's full name.
    resource_fqn: &'a str,
    /// What kind of resource it is.
    resource_type: &'a str,
    /// The role on it.
    role_id: &'a str,
}

/// How a token is rotated.
#[derive(Serialize, ToSchema)]
struct TruefoundryAutoRotate<'a> {
    /// After how many days it is replaced. Parts of a day count as one.
    auto_rotate_interval: i64,
    /// How many days the replaced one goes on. Parts of a day count as one.
    grace_period: i64,
    /// Whom to tell of rotations; `null`: nobody.
    #[schema(required = true)]
    notification_target: Option<TruefoundryNotificationTarget<'a>>,
}

/// Whom to tell, and how.
#[derive(Clone, Copy, Serialize, ToSchema)]
struct TruefoundryNotificationTarget<'a> {
    /// `email`.
    r#type: &'static str,
    /// The channel's name; empty where none is named.
    notification_channel: &'a str,
    /// The addresses.
    to_emails: &'a [String],
}

/// An owner of tokens.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundrySubject {
    /// Its id.
    pub subject_id: String,
    /// `user` or `serviceaccount`.
    pub subject_type: &'static str,
    /// The email if there is one, else the name.
    pub subject_slug: String,
    /// The name for people.
    pub subject_display_name: String,
}

/// A credential.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TruefoundryJwt<'a> {
    /// Its public id, as the token itself has it.
    id: &'a str,
    /// `user` or `serviceaccount`.
    subject_type: &'static str,
    /// The owner's id.
    subject_id: &'a str,
    /// Empty.
    metadata: Nothing,
    /// When it ends; one that has no end ends in the year 9999.
    #[serde(serialize_with = "end_or_never")]
    #[schema(value_type = String, format = DateTime)]
    expiry: Option<Time>,
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it was issued.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    /// `opaque`.
    token_type: &'static str,
}

/// An object with nothing in it.
#[derive(Serialize, ToSchema)]
#[schema(as = TruefoundryNothing)]
pub struct Nothing {}

impl TruefoundrySubject {
    /// An owner as a subject.
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
    /// A token at this time. The subject is its owner.
    pub fn of(item: &'a Item, subject: &'a TruefoundrySubject, tenant: &'a str, now: Time) -> Self {
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
            // The clients know no other word for one that does not work any more.
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

/// The credentials that work at this time, newest first.
pub fn live(item: &Item, now: Time) -> impl Iterator<Item = &ItemCredential> {
    item.credentials.iter().filter(move |credential| {
        let ItemCredential { id, issued_at, expires_at } = credential;
        item.terms.judge_fields(id.as_str(), *issued_at, *expires_at, now).is_valid()
    })
}

fn jwt<'a>(item: &Item, credential: &'a ItemCredential, subject: &'a TruefoundrySubject) -> TruefoundryJwt<'a> {
    TruefoundryJwt {
        id: credential.id.as_str(),
        subject_type: subject.subject_type,
        subject_id: &subject.subject_id,
        metadata: Nothing {},
        expiry: [credential.expires_at, item.expires_at()].into_iter().flatten().min(),
        created_at: credential.issued_at,
        updated_at: credential.issued_at,
        token_type: TOKEN_TYPE,
    }
}

fn permissions(item: &Item) -> Vec<TruefoundryPermission<'_>> {
    let shown = item.permissions.iter().map(|permission| TruefoundryPermission {
        resource_fqn: &permission.resource_fqn,
        resource_type: &permission.resource_type,
        role_id: &permission.role_id,
    });
    shown.collect()
}

fn auto_rotate<'a>(
    item: &Item,
    notification_target: Option<TruefoundryNotificationTarget<'a>>,
) -> Option<TruefoundryAutoRotate<'a>> {
    let interval = item.rotation_interval?;
    // What the resource says where it says nothing.
    let grace = item.grace_period.unwrap_or_else(|| DAY.min(interval / 2));
    Some(TruefoundryAutoRotate { auto_rotate_interval: days(interval), grace_period: days(grace), notification_target })
}

/// Whole days: the clients know no parts of them, and none below one.
fn days(length: SignedDuration) -> i64 {
    let (seconds, day) = (length.as_secs(), DAY.as_secs());
    (seconds / day + i64::from(seconds % day > 0)).max(1)
}

fn end_or_never<S: Serializer>(end: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    match end {
        Some(end) => end.serialize(serializer),
        None => serializer.serialize_str(when::NEVER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_day_count_as_one() {
        for (seconds, whole) in [(10, 1), (86_400, 1), (86_401, 2), (30 * 86_400, 30)] {
            assert_eq!(days(SignedDuration::from_secs(seconds)), whole, "{seconds} s");
        }
    }
}
