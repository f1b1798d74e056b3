//! A token and its user in Cryptlex's format. Without a value, a field is `null`. But `createdAt` and `updatedAt` are never `null`, because
//! clients cannot parse that: if they are unknown, they are absent.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{Address, EmailPreference, Organization, OwnerMetadata, Reseller, Time},
    rest::{model::TokenItem, store::OwnerEntry},
};

/// A personal access token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexToken<'a> {
    /// The id. Rotations do not change it.
    id: String,
    /// The time of creation.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// The time of the last change other than a use.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    /// The name.
    name: &'a str,
    /// The expiry; `null` for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    /// Whether it is revoked. A revoked token is not accepted.
    revoked: bool,
    /// The scopes.
    scopes: &'a [String],
    /// The owner's id.
    user_id: &'a str,
    /// The owner.
    #[schema(value_type = CryptlexUser)]
    user: &'a CryptlexUser<'a>,
    /// The time of the last use.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Time>,
    /// The time of the last rotation.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_rotated_at: Option<Time>,
}

/// The owner of a token, as its TokenOwner describes it. Without a TokenOwner, only id and name are set.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexUser<'a> {
    /// The owner's id.
    id: &'a str,
    /// The time of the TokenOwner's creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    created_at: Option<Time>,
    /// The time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    updated_at: Option<Time>,
    /// The display name.
    name: &'a str,
    /// The first name.
    first_name: Option<&'a str>,
    /// The last name.
    last_name: Option<&'a str>,
    /// The email address.
    email: Option<&'a str>,
    /// The first role.
    role: Option<&'a str>,
    /// All roles.
    roles: Option<&'a [String]>,
    /// Whether two-factor authentication is enabled.
    two_factor_enabled: Option<bool>,
    /// Whether single sign-on by Google is enabled.
    google_sso_enabled: Option<bool>,
    /// The time of the last login.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_login_at: Option<Time>,
    /// The time of the last activity.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_seen_at: Option<Time>,
    /// The company.
    company: Option<&'a str>,
    /// Whether the customer portal may be used.
    allow_customer_portal_access: Option<bool>,
    /// The organization's id.
    organization_id: Option<&'a str>,
    /// The organization.
    organization: Option<CryptlexOrganization<'a>>,
    /// The reseller's id.
    reseller_id: Option<&'a str>,
    /// The reseller.
    reseller: Option<CryptlexReseller<'a>>,
    /// Custom metadata.
    metadata: Option<Vec<CryptlexMetadata<'a>>>,
    /// Tags.
    tags: Option<&'a [String]>,
    /// The email preferences.
    email_preference: Option<CryptlexEmailPreference>,
}

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexOrganization<'a> {
    /// The id.
    id: Option<&'a str>,
    /// The time of creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    created_at: Option<Time>,
    /// The time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    updated_at: Option<Time>,
    /// The name.
    name: Option<&'a str>,
    /// The email address.
    email: Option<&'a str>,
    /// The description.
    description: Option<&'a str>,
    /// The maximum number of users.
    allowed_users: Option<i64>,
    /// The postal address.
    address: Option<CryptlexAddress<'a>>,
    /// The reseller's id.
    reseller_id: Option<&'a str>,
    /// The reseller.
    reseller: Option<CryptlexReseller<'a>>,
}

/// A postal address.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexAddress<'a> {
    /// The first line.
    address_line1: Option<&'a str>,
    /// The second line.
    address_line2: Option<&'a str>,
    /// The city.
    city: Option<&'a str>,
    /// The state or region.
    state: Option<&'a str>,
    /// The country.
    country: Option<&'a str>,
    /// The postal code.
    postal_code: Option<&'a str>,
}

/// A reseller.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexReseller<'a> {
    /// The id.
    id: Option<&'a str>,
    /// The time of creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    created_at: Option<Time>,
    /// The time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    updated_at: Option<Time>,
    /// The name.
    name: Option<&'a str>,
    /// The email address.
    email: Option<&'a str>,
    /// The description.
    description: Option<&'a str>,
    /// The maximum number of users.
    allowed_users: Option<i64>,
    /// The maximum number of organizations.
    allowed_organizations: Option<i64>,
}

/// A custom metadata entry.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexMetadata<'a> {
    /// The id.
    id: Option<&'a str>,
    /// The time of creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    created_at: Option<Time>,
    /// The time of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    updated_at: Option<Time>,
    /// The key.
    key: &'a str,
    /// The value.
    value: &'a str,
    /// The places where it is visible.
    view_permissions: Option<&'a [String]>,
    /// Whether it is visible to the owner.
    visible: Option<bool>,
}

/// Email preferences.
#[derive(Debug, Serialize, ToSchema)]
pub struct CryptlexEmailPreference {
    /// Whether emails with metrics are wanted.
    metrics: Option<bool>,
}

impl<'a> CryptlexToken<'a> {
    /// Shows a token of this user.
    pub fn of(item: &'a TokenItem, user: &'a CryptlexUser<'a>) -> Self {
        Self {
            id: item.id.to_string(),
            created_at: item.created_at,
            updated_at: item.updated_at,
            name: &item.display_name,
            expires_at: item.expires_at(),
            revoked: item.revoked,
            scopes: &item.scopes,
            user_id: user.id,
            user,
            last_used_at: item.last_used_at,
            last_rotated_at: item.last_rotated_at(),
        }
    }
}

impl<'a> CryptlexUser<'a> {
    /// Shows an owner.
    pub fn of(entry: &'a OwnerEntry) -> Self {
        let spec = &*entry.spec;
        let organization = spec.organization.as_deref();
        let reseller = spec.reseller.as_deref();
        Self {
            id: &entry.id,
            created_at: entry.times.map(|(created_at, _)| created_at),
            updated_at: entry.times.map(|(_, updated_at)| updated_at),
            name: spec.display_name.as_deref().unwrap_or(&entry.owner.name),
            first_name: spec.first_name.as_deref(),
            last_name: spec.last_name.as_deref(),
            email: spec.email.as_deref(),
            role: spec.role.as_deref(),
            roles: list(&spec.roles),
            two_factor_enabled: spec.two_factor_enabled,
            google_sso_enabled: spec.google_sso_enabled,
            last_login_at: spec.last_login_at,
            last_seen_at: spec.last_seen_at,
            company: spec.company.as_deref(),
            allow_customer_portal_access: spec.allow_customer_portal_access,
            organization_id: spec.organization_id.as_deref().or(organization.and_then(|one| one.id.as_deref())),
            organization: organization.map(Into::into),
            reseller_id: spec.reseller_id.as_deref().or(reseller.and_then(|one| one.id.as_deref())),
            reseller: reseller.map(Into::into),
            metadata: (!spec.metadata.is_empty()).then(|| spec.metadata.iter().map(Into::into).collect()),
            tags: list(&spec.tags),
            email_preference: spec.email_preference.as_ref().map(Into::into),
        }
    }
}

/// An empty list in the resource means that there is none.
fn list(texts: &[String]) -> Option<&[String]> {
    Some(texts).filter(|texts| !texts.is_empty())
}

impl<'a> From<&'a Organization> for CryptlexOrganization<'a> {
    fn from(one: &'a Organization) -> Self {
        Self {
            id: one.id.as_deref(),
            created_at: one.created_at,
            updated_at: one.updated_at,
            name: one.name.as_deref(),
            email: one.email.as_deref(),
            description: one.description.as_deref(),
            allowed_users: one.allowed_users,
            address: one.address.as_ref().map(Into::into),
            reseller_id: one
                .reseller_id
                .as_deref()
                .or(one.reseller.as_ref().and_then(|reseller| reseller.id.as_deref())),
            reseller: one.reseller.as_ref().map(Into::into),
        }
    }
}

impl<'a> From<&'a Address> for CryptlexAddress<'a> {
    fn from(one: &'a Address) -> Self {
        Self {
            address_line1: one.address_line1.as_deref(),
            address_line2: one.address_line2.as_deref(),
            city: one.city.as_deref(),
            state: one.state.as_deref(),
            country: one.country.as_deref(),
            postal_code: one.postal_code.as_deref(),
        }
    }
}

impl<'a> From<&'a Reseller> for CryptlexReseller<'a> {
    fn from(one: &'a Reseller) -> Self {
        Self {
            id: one.id.as_deref(),
            created_at: one.created_at,
            updated_at: one.updated_at,
            name: one.name.as_deref(),
            email: one.email.as_deref(),
            description: one.description.as_deref(),
            allowed_users: one.allowed_users,
            allowed_organizations: one.allowed_organizations,
        }
    }
}

impl<'a> From<&'a OwnerMetadata> for CryptlexMetadata<'a> {
    fn from(one: &'a OwnerMetadata) -> Self {
        Self {
            id: one.id.as_deref(),
            created_at: one.created_at,
            updated_at: one.updated_at,
            key: &one.key,
            value: &one.value,
            view_permissions: list(&one.view_permissions),
            visible: one.visible,
        }
    }
}

impl From<&EmailPreference> for CryptlexEmailPreference {
    fn from(one: &EmailPreference) -> Self {
        Self { metrics: one.metrics }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rest::fixture::RestFixture;

    fn shown(fixture: &RestFixture, id: crate::index::PatUid) -> Value {
        let service = fixture.service();
        let item = service.item(id).unwrap();
        serde_json::to_value(CryptlexToken::of(&item, &CryptlexUser::of(&service.owner(&item.owner)))).unwrap()
    }

    #[test]
    fn token_and_user_show_every_field() {
        let mut fixture = RestFixture::new();
        let reseller = json!({
            "id": "r-1", "createdAt": "2025-01-02T00:00:00Z", "updatedAt": "2025-01-03T00:00:00Z", "name": "Resale",
            "email": "sales@example.com", "description": "Sells.", "allowedUsers": 5, "allowedOrganizations": 6,
        });
        let organization = json!({
            "id": "o-1", "createdAt": "2025-02-02T00:00:00Z", "updatedAt": "2025-02-03T00:00:00Z", "name": "Engines",
            "email": "office@example.com", "description": "Builds engines.", "allowedUsers": 7,
            "address": {
                "addressLine1": "12 St James's Square", "addressLine2": "Top floor", "city": "London", "state": "England",
                "country": "GB", "postalCode": "SW1Y 4JH",
            },
            "resellerId": "r-2", "reseller": reseller,
        });
        let metadata = json!([{
            "id": "m-1", "createdAt": "2025-03-02T00:00:00Z", "updatedAt": "2025-03-03T00:00:00Z", "key": "desk", "value": "4",
            "viewPermissions": ["activation"], "visible": true,
        }]);
        fixture.owner(0xada, json!({
            "subject": {"kind": "User", "name": "ada"}, "displayName": "Ada Lovelace", "firstName": "Ada",
            "lastName": "Lovelace", "email": "ada@example.com", "role": "admin", "roles": ["admin", "user"],
            "twoFactorEnabled": true, "googleSsoEnabled": false, "lastLoginAt": "2026-04-01T00:00:00Z",
            "lastSeenAt": "2026-04-02T00:00:00Z", "company": "Analytical Engines", "allowCustomerPortalAccess": true,
            "organizationId": "o-1", "organization": organization, "resellerId": "r-1", "reseller": reseller,
            "metadata": metadata, "tags": ["math"], "emailPreference": {"metrics": false},
        }));
        let spec = json!({
            "owner": {"kind": "User", "name": "ada"}, "displayName": "laptop", "scopes": ["a", "b"],
            "expiry": {"at": "2030-01-01T00:00:00Z"}, "revoked": true,
        });
        let used = json!({"status": {"lastUsedAt": "2026-05-01T00:00:00.5Z", "lastIssuedAt": "2026-06-01T11:30:00Z"}});
        let id = fixture.pat(spec, used).id;

        let mut organization = organization;
        organization["resellerId"] = json!("r-2");
        assert_eq!(
            shown(&fixture, id),
            json!({
                "id": "00000000000000000000000000000001",
                "createdAt": "2026-01-01T00:00:01Z", "updatedAt": "2026-01-01T00:00:01Z",
                "name": "laptop", "expiresAt": "2030-01-01T00:00:00Z", "revoked": true, "scopes": ["a", "b"],
                "userId": "00000000000000000000000000000ada",
                "user": {
                    "id": "00000000000000000000000000000ada",
                    "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
                    "name": "Ada Lovelace", "firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.com",
                    "role": "admin", "roles": ["admin", "user"], "twoFactorEnabled": true, "googleSsoEnabled": false,
                    "lastLoginAt": "2026-04-01T00:00:00Z", "lastSeenAt": "2026-04-02T00:00:00Z",
                    "company": "Analytical Engines", "allowCustomerPortalAccess": true, "organizationId": "o-1",
                    "organization": organization, "resellerId": "r-1", "reseller": reseller, "metadata": metadata,
                    "tags": ["math"], "emailPreference": {"metrics": false},
                },
                "lastUsedAt": "2026-05-01T00:00:00.5Z", "lastRotatedAt": "2026-06-01T11:30:00Z",
            })
        );
    }

    #[test]
    fn unknown_values_are_null() {
        let mut fixture = RestFixture::new();
        let id = fixture.user("ada", "laptop", &[]).id;
        let token = shown(&fixture, id);
        for field in ["expiresAt", "lastUsedAt", "lastRotatedAt"] {
            assert_eq!(token.get(field), Some(&Value::Null), "{field}");
        }
        assert_eq!((&token["revoked"], &token["scopes"]), (&json!(false), &json!([])));
        assert_eq!(
            (&token["userId"], &token["user"]["id"], &token["user"]["name"]),
            (&json!("ada"), &json!("ada"), &json!("ada"))
        );
        let user = token["user"].as_object().unwrap();
        let known = ["id", "name"];
        assert!(user.iter().all(|(field, value)| known.contains(&&**field) != value.is_null()), "{user:?}");
        assert!(!user.contains_key("createdAt") && !user.contains_key("updatedAt"), "{user:?}");
        assert_eq!(user.len(), 20);
    }

    #[test]
    fn partly_known_organization_has_null_elsewhere() {
        let mut fixture = RestFixture::new();
        fixture.owner(
            1,
            json!({
                "subject": {"kind": "User", "name": "ada"},
                "organization": {"id": "o-1", "address": {"city": "London"}, "reseller": {"id": "r-1"}},
                "reseller": {"id": "r-2"}, "metadata": [{"key": "desk", "value": "4"}], "emailPreference": {},
            }),
        );
        let id = fixture.user("ada", "laptop", &[]).id;
        let user = &shown(&fixture, id)["user"];
        assert_eq!((&user["organizationId"], &user["resellerId"]), (&json!("o-1"), &json!("r-2")));
        let (organization, reseller) = (&user["organization"], &user["organization"]["reseller"]);
        assert_eq!((&organization["resellerId"], &reseller["id"]), (&json!("r-1"), &json!("r-1")));
        assert_eq!(
            organization["address"],
            json!({
                "addressLine1": null, "addressLine2": null, "city": "London", "state": null, "country": null, "postalCode": null,
            })
        );
        assert_eq!((organization.as_object().unwrap().len(), reseller.as_object().unwrap().len()), (8, 6));
        assert_eq!(reseller["allowedUsers"], Value::Null);
        assert_eq!(
            user["metadata"],
            json!([{"id": null, "key": "desk", "value": "4", "viewPermissions": null, "visible": null}])
        );
        assert_eq!(user["emailPreference"], json!({"metrics": null}));
    }
}
