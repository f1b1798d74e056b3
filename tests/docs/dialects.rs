//! The documentation of the REST API: docs/openapi.json matches the code, and the tables of docs/dialects.md name existing tests.

use std::{collections::BTreeSet, fs, path::Path};

use pat_operator::rest::openapi;

use super::{checked_in, file};

/// The parameters, fields, statuses and rights in each product's public description. The product's tables must list each of them.
const NAMED: [(&str, &str); 3] = [
    (
        "SailPoint",
        "owner-id filters lastUsed le isnull me 200 400 401 403 429 500 sp:my-personal-access-tokens:read \
        sp:my-personal-access-tokens:manage sp:all-personal-access-tokens:read sp:all-personal-access-tokens:manage \
        idn:my-personal-access-tokens:read idn:all-personal-access-tokens:read \
        idn:managed-personal-access-tokens:read id name scope owner created managed accessTokenValiditySeconds \
        expirationDate userAwareTokenNeverExpires secret",
    ),
    (
        "TrueFoundry",
        "limit offset data pagination total id name type tenantName manifest.name manifest.type \
        expiration_date permissions resource_fqn resource_type role_id auto_rotate auto_rotate_interval grace_period \
        notification_target notification_channel to_emails secret_fqn createdBySubject subjectId subjectType \
        subjectSlug subjectDisplayName createdAt updatedAt isExpired jwts metadata expiry createdBy",
    ),
    (
        "Cryptlex",
        "page limit sort search id createdAt updatedAt name expiresAt revoked scopes userId user firstName lastName \
        email role twoFactorEnabled googleSsoEnabled lastLoginAt company allowCustomerPortalAccess roles lastSeenAt \
        organizationId organization description allowedUsers address addressLine1 addressLine2 city state country \
        postalCode resellerId reseller allowedOrganizations metadata key value viewPermissions visible tags \
        emailPreference metrics lastUsedAt lastRotatedAt",
    ),
];

#[test]
fn openapi_json_matches_the_code() {
    checked_in::compare("docs/openapi.json", &openapi::text());
}

#[test]
fn each_row_of_the_dialects_page_names_existing_tests() {
    let tests = tests();
    let mut rows = 0;
    for row in page().lines().filter_map(cells) {
        let named = words(row.last().expect("a row has cells"));
        assert!(!named.is_empty(), "{}: no test", row[0]);
        for name in named {
            assert!(tests.contains(&name), "{}: there is no test {name}", row[0]);
        }
        rows += 1;
    }
    assert!(rows > 100, "the page has tables");
}

#[test]
fn dialect_tables_list_all_documented_names() {
    let page = page();
    let sections: Vec<(&str, &str)> = page.split("\n## ").filter_map(|part| part.split_once('\n')).collect();
    for (product, names) in NAMED {
        let section = sections.iter().find(|(title, _)| *title == product);
        let (_, section) = section.unwrap_or_else(|| panic!("no section {product}"));
        let rows: Vec<Vec<String>> = section.lines().filter_map(cells).collect();
        // Parts of a name count too: `email` of `user.email`, and both words of `created gt`.
        let known: BTreeSet<String> = rows
            .iter()
            .flat_map(|row| row[..row.len() - 1].iter().flat_map(|cell| words(cell)))
            .flat_map(|word| [word.rsplit(['.', ' ']).next().unwrap_or_default().to_owned(), word])
            .collect();
        let plain: BTreeSet<&str> = rows.iter().flat_map(|row| row[0].split([',', ' '])).collect();
        let missing: Vec<_> = names.split(' ').filter(|name| !known.contains(*name) && !plain.contains(name)).collect();
        assert!(missing.is_empty(), "{product}: {missing:?}");
    }
}

fn page() -> String {
    fs::read_to_string(file("docs/dialects.md")).expect("the page exists")
}

/// The cells of a table row. `None` for a heading row, the line below it, and other text.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let cells: Vec<String> = inner.split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let is_head = cells.last().is_some_and(|cell| cell == "shown by" || cell.starts_with("---"));
    (!is_head).then_some(cells)
}

/// The words in backticks.
fn words(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names of all test functions, including those in a `proptest!`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["src", "tests"] {
        collect(&file(folder), &mut found);
    }
    found
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("readable");
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                let name =
                    line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
                match name {
                    Some(name) if is_test => _ = found.insert(name.to_owned()),
                    _ => {}
                }
                is_test = line.starts_with("#[")
                    && (is_test || line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
            }
        }
    }
}
