//! psql: questions to a database, one value to a line.

use std::time::Duration;

use super::{Invocation, line};

/// How an application logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) host: String,
    pub(crate) port: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) tls: String,
}

/// Logs in over the network; the password is in the environment of the child, as PGPASSWORD.
pub(crate) fn login(login: &Login) -> Invocation {
    let Login { host, port, database, user, tls } = login;
    let connection = format!("host={host} port={port} dbname={database} user={user} sslmode={tls} connect_timeout=5");
    // Never asks for a password, and reads no settings of whoever runs it.
    let query = "select current_user";
    line!("psql --no-psqlrc --no-password -At {connection} -c {query}").limit(Duration::from_secs(10))
}

/// Asks, inside the pod of a cluster, whether role and database are there.
pub(crate) fn question(role: &str, database: &str) -> [String; 5] {
    let query = format!(
        "select 'role' from pg_roles where rolname = {} and rolcanlogin union all select 'database of ' || pg_get_userbyid(datdba) from pg_database where datname = {}",
        literal(role),
        literal(database)
    );
    ["psql".to_owned(), "--username=postgres".to_owned(), "--no-psqlrc".to_owned(), "-Atc".to_owned(), query]
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names() {
        let login = login(&Login {
            host: "pg.example".into(),
            port: "5432".into(),
            database: "a".into(),
            user: "b".into(),
            tls: "require".into(),
        });
        let shown = login.to_string();
        assert!(
            shown.contains("'host=pg.example port=5432 dbname=a user=b sslmode=require connect_timeout=5'"),
            "{shown}"
        );
        assert!(shown.ends_with("-c 'select current_user'"), "{shown}");
        assert!(question("a'; drop", "d")[4].contains("rolname = 'a''; drop'"));
    }
}
