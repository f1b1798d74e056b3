//! A token and its user, as Cryptlex's clients read them: every field is there, and `null` where there is no value.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{Address, EmailPreference, Organization, OwnerMetadata, Reseller, Time},
    rest::{item::Item, service::OwnerEntry},
};

/// A personal access token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexToken<'a> {
    /// Its id: the same as long as it is there, whatever is issued for it.
    id: String,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it was last changed, uses aside.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
    /// Its name.
    name: &'a str,
    /// When it ends; `null`: never.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    expires_at: Option<Time>,
    /// Whether it is revoked. Such a token is not accepted anywhere.
    revoked: bool,
    /// What it may do.
    scopes: &'a [String],
    /// Whose it is.
    user_id: &'a str,
    /// Whose it is.
    #[schema(value_type = CryptlexUser)]
    user: &'a CryptlexUser<'a>,
    /// When it was last used.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_used_at: Option<Time>,
    /// When its text was last replaced.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_rotated_at: Option<Time>,
}

/// Whose a token is: what the owner's TokenOwner says. Without one there are an id and a name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexUser<'a> {
    /// The owner's id.
    id: &'a str,
    /// When the TokenOwner was created.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    created_at: Option<Time>,
    /// When it last changed.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    updated_at: Option<Time>,
    /// The name, as people see it.
    name: &'a str,
    /// The first name.
    #[schema(required = true)]
    first_name: Option<&'a str>,
    /// The last name.
    #[schema(required = true)]
    last_name: Option<&'a str>,
    /// The mail address.
    #[schema(required = true)]
    email: Option<&'a str>,
    /// The first role.
    #[schema(required = true)]
    role: Option<&'a str>,
    /// All roles.
    #[schema(required = true)]
    roles: Option<&'a [String]>,
    /// Whether a second factor is asked for.
    #[schema(required = true)]
    two_factor_enabled: Option<bool>,
    /// Whether to log in by Google is allowed.
    #[schema(required = true)]
    google_sso_enabled: Option<bool>,
    /// The last log-in.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_login_at: Option<Time>,
    /// When the owner was last seen.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_seen_at: Option<Time>,
    /// The company.
    #[schema(required = true)]
    company: Option<&'a str>,
    /// Whether the customer portal may be used.
    #[schema(required = true)]
    allow_customer_portal_access: Option<bool>,
    /// The organization's id.
    #[schema(required = true)]
    organization_id: Option<&'a str>,
    /// The organization.
    #[schema(required = true)]
    organization: Option<CryptlexOrganization<'a>>,
    /// The reseller's id.
    #[schema(required = true)]
    reseller_id: Option<&'a str>,
    /// The reseller.
    #[schema(required = true)]
    reseller: Option<CryptlexReseller<'a>>,
    /// Values of one's own.
    #[schema(required = true)]
    metadata: Option<Vec<CryptlexMetadata<'a>>>,
    /// Tags.
    #[schema(required = true)]
    tags: Option<&'a [String]>,
    /// Which mails are wanted.
    #[schema(required = true)]
    email_preference: Option<CryptlexEmailPreference>,
}

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexOrganization<'a> {
    /// Its id.
    #[schema(required = true)]
    id: Option<&'a str>,
    /// When it was created.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    created_at: Option<Time>,
    /// When it last changed.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    updated_at: Option<Time>,
    /// Its name.
    #[schema(required = true)]
    name: Option<&'a str>,
    /// Its mail address.
    #[schema(required = true)]
    email: Option<&'a str>,
    /// What it is.
    #[schema(required = true)]
    description: Option<&'a str>,
    /// How many users it may have.
    #[schema(required = true)]
    allowed_users: Option<i64>,
    /// Where it is.
    #[schema(required = true)]
    address: Option<CryptlexAddress<'a>>,
    /// Its reseller's id.
    #[schema(required = true)]
    reseller_id: Option<&'a str>,
    /// Its reseller.
    #[schema(required = true)]
    reseller: Option<CryptlexReseller<'a>>,
}

/// A postal address.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexAddress<'a> {
    /// The first line.
    #[schema(required = true)]
    address_line1: Option<&'a str>,
    /// The second line.
    #[schema(required = true)]
    address_line2: Option<&'a str>,
    /// The city.
    #[schema(required = true)]
    city: Option<&'a str>,
    /// The state or region.
    #[schema(required = true)]
    state: Option<&'a str>,
    /// The country.
    #[schema(required = true)]
    country: Option<&'a str>,
    /// The postal code.
    #[schema(required = true)]
    postal_code: Option<&'a str>,
}

/// A reseller.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexReseller<'a> {
    /// Its id.
    #[schema(required = true)]
    id: Option<&'a str>,
    /// When it was created.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    created_at: Option<Time>,
    /// When it last changed.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    updated_at: Option<Time>,
    /// Its name.
    #[schema(required = true)]
    name: Option<&'a str>,
    /// Its mail address.
    #[schema(required = true)]
    email: Option<&'a str>,
    /// What it is.
    #[schema(required = true)]
    description: Option<&'a str>,
    /// How many users it may have.
    #[schema(required = true)]
    allowed_users: Option<i64>,
    /// How many organizations it may have.
    #[schema(required = true)]
    allowed_organizations: Option<i64>,
}

/// A value of one's own.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CryptlexMetadata<'a> {
    /// Its id.
    #[schema(required = true)]
    id: Option<&'a str>,
    /// When it was created.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    created_at: Option<Time>,
    /// When it last changed.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    updated_at: Option<Time>,
    /// Its name.
    key: &'a str,
    /// Its text.
    value: &'a str,
    /// Where it may be seen.
    #[schema(required = true)]
    view_permissions: Option<&'a [String]>,
    /// Whether the owner sees it.
    #[schema(required = true)]
    visible: Option<bool>,
}

/// Which mails are wanted.
#[derive(Debug, Serialize, ToSchema)]
pub struct CryptlexEmailPreference {
    /// Those with metrics.
    #[schema(required = true)]
    metrics: Option<bool>,
}

impl<'a> CryptlexToken<'a> {
    /// The token of this user.
    pub fn of(item: &'a Item, user: &'a CryptlexUser<'a>) -> Self {
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
            // The first issue replaces nothing.
            last_rotated_at: item.last_issued_at.filter(|last| item.first_issued_at.is_some_and(|first| first < *last)),
        }
    }
}

impl<'a> CryptlexUser<'a> {
    /// What is known of an owner.
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

/// An empty list in the resource is the same as none.
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
    use crate::rest::world::World;

    fn told(world: &World, id: crate::index::PatUid) -> Value {
        let service = world.service();
        let item = service.item(id).unwrap();
        serde_json::to_value(CryptlexToken::of(&item, &CryptlexUser::of(&service.owner(&item.owner)))).unwrap()
    }

    #[test]
    fn a_token_and_its_user_are_told_with_every_field() {
        let mut world = World::new();
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
        world.owner(0xada, json!({
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
        let id = world.pat(spec, used).id;

        let mut organization = organization;
        organization["resellerId"] = json!("r-2");
        assert_eq!(
            told(&world, id),
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
    fn what_nobody_knows_is_null() {
        let mut world = World::new();
        let id = world.user("ada", "laptop", &[]).id;
        let token = told(&world, id);
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
        assert_eq!(user.len(), 22);
    }

    #[test]
    fn what_is_known_of_an_organization_in_part_is_null_in_the_rest() {
        let mut world = World::new();
        world.owner(
            1,
            json!({
                "subject": {"kind": "User", "name": "ada"},
                "organization": {"id": "o-1", "address": {"city": "London"}, "reseller": {"id": "r-1"}},
                "reseller": {"id": "r-2"}, "metadata": [{"key": "desk", "value": "4"}], "emailPreference": {},
            }),
        );
        let id = world.user("ada", "laptop", &[]).id;
        let user = &told(&world, id)["user"];
        assert_eq!((&user["organizationId"], &user["resellerId"]), (&json!("o-1"), &json!("r-2")));
        let (organization, reseller) = (&user["organization"], &user["organization"]["reseller"]);
        assert_eq!((&organization["resellerId"], &reseller["id"]), (&json!("r-1"), &json!("r-1")));
        assert_eq!(
            organization["address"],
            json!({
                "addressLine1": null, "addressLine2": null, "city": "London", "state": null, "country": null, "postalCode": null,
            })
        );
        assert_eq!((organization.as_object().unwrap().len(), reseller.as_object().unwrap().len()), (10, 8));
        assert_eq!(reseller["allowedUsers"], Value::Null);
        assert_eq!(
            user["metadata"],
            json!([{
                "id": null, "createdAt": null, "updatedAt": null, "key": "desk", "value": "4", "viewPermissions": null, "visible": null,
            }])
        );
        assert_eq!(user["emailPreference"], json!({"metrics": null}));
    }
}
