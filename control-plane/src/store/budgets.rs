//! What is leased of budgets of tokens: a table of its own, written in one transaction for many keys.

use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::StoreError;
use super::disk::Disk;

const BUDGETS: TableDefinition<'_, &str, u64> = TableDefinition::new("budgets");

impl Disk {
    pub(super) fn list_budgets(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let transaction = self.database.begin_read().map_err(redb::Error::from)?;
        let table = match transaction.open_table(BUDGETS) {
            Ok(table) => table,
            // Nobody has ever asked.
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::Disk(error.into())),
        };
        let mut rows = Vec::new();
        for entry in table.iter().map_err(redb::Error::from)? {
            let (name, tokens) = entry.map_err(redb::Error::from)?;
            rows.push((name.value().to_owned(), tokens.value()));
        }
        Ok(rows)
    }

    /// Raises rows, never lowers them: two writers may come in either order. Takes out those before `oldest`.
    pub(super) fn raise_budgets(
        &self,
        rows: &[(&str, u64)],
        oldest: &str,
    ) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(BUDGETS)?;
            table.retain_in(..oldest, |_, _| false)?;
            for (name, tokens) in rows {
                let before = table.get(*name)?.map_or(0, |before| before.value());
                table.insert(*name, before.max(*tokens))?;
            }
            Ok(())
        })
    }

    pub(super) fn set_budgets(&self, rows: &[(&str, u64)]) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(BUDGETS)?;
            for (name, tokens) in rows {
                table.insert(*name, *tokens)?;
            }
            Ok(())
        })
    }
}
