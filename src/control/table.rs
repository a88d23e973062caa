//! The table of leases: its definition, and every statement about it.
//!
//! Two things about its keys are load-bearing. The fence is an identity column: it grows with every acquisition of any
//! lease of the table, also when rows were deleted meanwhile. And it is unique, so an acquisition, which changes it,
//! needs the row's strongest lock, while a renewal, which does not, gets by with a weaker one: a transaction that holds
//! `FOR KEY SHARE` on the row keeps others from taking the lease over, and does not keep the holder from renewing it.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::definition::{DEFINITION, Found, LOOK};
use super::error::ControlError;
use super::lease_row::{self, LeaseRow};
use super::server::{Parameter, Server, SessionGuard};
use super::stream::ANSWER;

/// How long a whole table may be, in bytes: some 300,000 leases.
const LIST: usize = 64 << 20;

/// A table of leases, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// As it was given.
    name: String,
    /// As it stands in a statement.
    quoted: String,
}

impl Table {
    /// The table `name`, or `schema.name`: as the server stores it, not quoted.
    pub fn named(name: &str) -> Self {
        let parts = name.split('.').map(quoted).collect::<Vec<_>>();
        Self {
            name: name.to_owned(),
            quoted: parts.join("."),
        }
    }

    /// As it stands in a statement: quoted, and with its schema once that is known.
    pub fn quoted(&self) -> &str {
        &self.quoted
    }

    /// The same table, found in a schema: no `search_path` can make another of it.
    fn found(&self, schema: &str, table: &str) -> Self {
        Self {
            name: self.name.clone(),
            quoted: format!("{}.{}", quoted(schema), quoted(table)),
        }
    }

    /// Puts the table's name where a statement says `{t}`, and the durable commit where it says `{durable}`.
    pub(crate) fn sql(&self, statement: &str) -> String {
        statement
            .replace("{t}", &self.quoted)
            .replace("{durable}", DURABLE)
    }

    /// Runs one of the statements below. A session that has not seen the table yet looks at its definition first.
    ///
    /// # Errors
    ///
    /// [`ControlError::Table`] when it is not as it must be or the role may not use it; SQLSTATE 42P01 when it is not
    /// there.
    pub(crate) async fn query(
        &self,
        server: &Server,
        within: Duration,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, ControlError> {
        self.query_up_to(ANSWER, server, within, statement, parameters)
            .await
    }

    async fn query_up_to(
        &self,
        bytes: usize,
        server: &Server,
        within: Duration,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, ControlError> {
        let answer = server
            .lent(within, async |guard| {
                let Some(table) = self.seen(guard).await? else {
                    return Err(ControlError::Server {
                        what: format!("there is no table {}", self.name),
                        sqlstate: "42P01".into(),
                        is_fatal: false,
                    });
                };
                guard.allow(bytes);
                let answer = guard.query(&table.sql(statement), parameters).await;
                if answer.is_err() {
                    // It may have been dropped, and be another the next time.
                    guard.tables().remove(&self.quoted);
                }
                answer
            })
            .await;
        answer.map_err(|error| self.refused(error))
    }

    /// Makes sure that the table is there and is as it must be; creates it when it is not there. Returns it with its
    /// schema.
    ///
    /// # Errors
    ///
    /// [`ControlError::Table`] when it is not as it must be, or cannot be created.
    pub(crate) async fn prepare(
        &self,
        server: &Server,
        within: Duration,
    ) -> Result<Self, ControlError> {
        if let Some(table) = self.look(server, within).await? {
            return Ok(table);
        }
        let table = self.to_create(server, within).await?;
        // One message is one transaction, so the lock is held until the table is there, through a pooler as well.
        // Without it, two who create it at once collide in the catalogue.
        let lock =
            "SELECT pg_catalog.pg_advisory_xact_lock(hashtext('poolproof'), hashtext('lease'))";
        let create = table.sql(&format!("{lock}, {{durable}};\n{DEFINITION}"));
        match server.batch(within, &create).await {
            Ok(_) => {}
            Err(error) => return Err(self.not_created(error)),
        }
        if let Some(table) = table.look(server, within).await? {
            return Ok(table);
        }
        Err(self.wrong("was created and has gone again"))
    }

    /// With the schema that it would be created in.
    async fn to_create(&self, server: &Server, within: Duration) -> Result<Self, ControlError> {
        if self.name.contains('.') {
            return Ok(self.clone());
        }
        let rows = server
            .query(within, "SELECT pg_catalog.current_schema()::text", &[])
            .await?;
        let schema = rows
            .first()
            .and_then(|row| row.try_get::<_, Option<String>>(0).ok()?);
        match schema {
            Some(schema) if schema.starts_with("pg_temp") => {
                Err(self.wrong("would be a temporary one, by this role's search_path: put a schema before its name"))
            }
            Some(schema) => Ok(self.found(&schema, &self.name)),
            None => Err(self.wrong(
                "cannot be created, for this role's search_path names no schema that it may look into: put a schema \
                 before its name",
            )),
        }
    }

    /// None when there is no such table.
    async fn look(&self, server: &Server, within: Duration) -> Result<Option<Self>, ControlError> {
        let seen = server
            .lent(within, async |guard| self.seen(guard).await)
            .await;
        seen.map_err(|error| self.refused(error))
    }

    /// The table with its schema, as this session sees it; none when there is none.
    async fn seen(&self, guard: &mut SessionGuard) -> Result<Option<Self>, ControlError> {
        if let Some(quoted) = guard.tables().get(&self.quoted) {
            return Ok(Some(Self {
                name: self.name.clone(),
                quoted: quoted.clone(),
            }));
        }
        let rows = guard.query(LOOK, &[(&self.quoted, Type::TEXT)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let found = Found::try_from(row).map_err(|error| ControlError::from_driver(&error))?;
        if let Some(fault) = found.fault() {
            return Err(self.wrong(&fault));
        }
        let table = self.found(&found.schema, &found.name);
        guard
            .tables()
            .insert(self.quoted.clone(), table.quoted.clone());
        Ok(Some(table))
    }

    fn wrong(&self, what: &str) -> ControlError {
        ControlError::Table {
            what: format!(
                "the table {} {what}. Mend it, if it is meant for leases, or take another name (table=): poolproof \
                 lease init creates it",
                self.name
            ),
        }
    }

    /// Says what a role needs that was refused; other errors stay as they are.
    pub(crate) fn refused(&self, error: ControlError) -> ControlError {
        if error.sqlstate() != Some("42501") {
            return error;
        }
        let schema = self
            .quoted
            .rsplit_once('.')
            .map_or_else(String::new, |(schema, _)| {
                format!("; and GRANT USAGE ON SCHEMA {schema} to it")
            });
        ControlError::Table {
            what: format!(
                "this role may not use the table {}, or not create it ({error}). Let the owner run poolproof lease \
                 init, and GRANT SELECT, INSERT, UPDATE ON {} to this role{schema}",
                self.name, self.quoted
            ),
        }
    }

    fn not_created(&self, error: ControlError) -> ControlError {
        let reason = match error.sqlstate() {
            Some("25006") => "the server is read-only: leases need one that takes writes",
            Some("42501") => return self.refused(error),
            Some("3F000") => "there is no such schema",
            _ => return error,
        };
        ControlError::Table {
            what: format!(
                "the table {} cannot be created: {reason} ({error})",
                self.name
            ),
        }
    }

    /// Every lease of the table, or one of them.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn rows(
        &self,
        server: &Server,
        within: Duration,
        name: Option<&str>,
    ) -> Result<Vec<LeaseRow>, ControlError> {
        let most = if name.is_some() { ANSWER } else { LIST };
        let found = self
            .query_up_to(
                most,
                server,
                within,
                &lease_row::query(),
                &[(&name, Type::TEXT)],
            )
            .await?;
        let read = found.iter().map(LeaseRow::read).collect::<Result<_, _>>();
        read.map_err(|error| ControlError::from_driver(&error))
    }

    /// Makes sure that the table, if it is there, is one of leases.
    ///
    /// # Errors
    ///
    /// [`ControlError::Table`] when it is another.
    pub async fn verify(&self, server: &Server, within: Duration) -> Result<(), ControlError> {
        self.look(server, within).await.map(drop)
    }

    /// Creates the table if it is not there.
    ///
    /// # Errors
    ///
    /// As of a lease that is acquired.
    pub async fn init(&self, server: &Server, within: Duration) -> Result<(), ControlError> {
        self.prepare(server, within).await.map(drop)
    }

    /// Takes a lease away from whoever holds it. False when nobody does.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn free(
        &self,
        server: &Server,
        within: Duration,
        name: &str,
    ) -> Result<bool, ControlError> {
        let freed = self
            .query(server, within, FREE, &[(&name, Type::TEXT)])
            .await?;
        Ok(!freed.is_empty())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// For the transaction that asks: what is granted, renewed or given back has reached the disk before it is answered,
/// and with synchronous replication a standby's as well.
///
/// `off` alone is raised: every other value waits for this server's disk at least, and `local` says on purpose that no
/// standby is waited for. Without standbys `on` is the same as `local`.
pub const DURABLE: &str = "\
pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
ELSE pg_catalog.current_setting('synchronous_commit') END, true)";

/// The token and its new owner: `$1` name, `$2` token, `$3` host, `$4` pid, `$5` thread, `$6` application, `$7` ttl.
pub(crate) const INSERT: &str = "\
INSERT INTO {t} (name, token, host, pid, thread, application, acquired_at, renewed_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp(),
  clock_timestamp() + $7 * interval '1 second')
ON CONFLICT (name) DO NOTHING RETURNING fence, {durable}";

/// As [`INSERT`]; `$8` tokens of attempts of ours whose end is not known, `$9` the grace in seconds.
///
/// The row that is guarded by a transaction is left out, not waited for: nobody is held up on the server.
pub(crate) const TAKE_OVER: &str = "\
WITH free AS (
  SELECT name FROM {t} WHERE name = $1
    AND (token IS NULL OR token = ANY($8) OR expires_at + $9 * interval '1 second' <= clock_timestamp())
  FOR UPDATE SKIP LOCKED)
UPDATE {t} AS lease SET fence = DEFAULT, token = $2, host = $3, pid = $4, thread = $5, application = $6,
  acquired_at = clock_timestamp(), renewed_at = clock_timestamp(),
  expires_at = clock_timestamp() + $7 * interval '1 second'
FROM free WHERE lease.name = free.name RETURNING lease.fence, {durable}";

/// `$1` name, `$2` fence, `$3` token, `$4` ttl. No row: it is not ours any more.
pub(crate) const RENEW: &str = "\
UPDATE {t} SET renewed_at = clock_timestamp(), expires_at = clock_timestamp() + $4 * interval '1 second'
WHERE name = $1 AND fence = $2 AND token = $3 RETURNING {durable}";

/// `$1` name, `$2` tokens of ours.
pub(crate) const RELEASE: &str = "\
UPDATE {t} SET token = NULL, expires_at = clock_timestamp() WHERE name = $1 AND token = ANY($2) RETURNING {durable}";

const FREE: &str = "\
UPDATE {t} SET token = NULL, expires_at = clock_timestamp() WHERE name = $1 AND token IS NOT NULL RETURNING {durable}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let table = Table::named("a\"b.c d");
        assert_eq!(
            table.sql("SELECT FROM {t}"),
            "SELECT FROM \"a\"\"b\".\"c d\""
        );
        assert_eq!(
            Table::named("c").found("a\"b", "c").quoted(),
            "\"a\"\"b\".\"c\""
        );
    }
}
