//! The task coordinator's settings, and which accounts have one.

use super::{Config, ConfigError};
use crate::auth::{AdoptSpec, Book, DEFAULT_ACCOUNT};

/// What the config file says in `coordinator {}` beside on and off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorOptions {
    /// Whether accounts that ask for a coordinator get one; `--no-coordinator` says no.
    pub in_accounts: bool,
    /// `result_subjects`: filters of the subjects that results may be sent to, where an account says nothing else.
    pub result_subjects: Vec<String>,
    /// `council_subjects`: the same for the offers and statuses of councils.
    pub council_subjects: Vec<String>,
    /// `adopt`: consumers of `$G` whose dead messages become dead letters.
    pub adopt: Vec<AdoptSpec>,
}

impl Default for CoordinatorOptions {
    fn default() -> CoordinatorOptions {
        let result_subjects = ["results.>", "_INBOX.>"].map(str::to_owned).to_vec();
        let council_subjects = ["councils.>", "*.councils.>"].map(str::to_owned).to_vec();
        CoordinatorOptions { in_accounts: true, result_subjects, council_subjects, adopt: Vec::new() }
    }
}

/// An account that the coordinator serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskAccount {
    pub name: String,
    pub result_subjects: Vec<String>,
    pub council_subjects: Vec<String>,
    pub adopt: Vec<AdoptSpec>,
}

impl Config {
    /// The accounts of `book` that the coordinator serves: `$G` by the setting at the top, others by their own.
    pub fn task_accounts(&self, book: &Book) -> Vec<TaskAccount> {
        if !self.jetstream {
            return Vec::new();
        }
        let default = book.accounts().iter().find(|spec| spec.name == DEFAULT_ACCOUNT);
        let options = &self.coordinator_options;
        let served = |name: &str, spec: Option<&crate::auth::AccountSpec>| {
            let own = spec.and_then(|spec| spec.coordinator.clone()).unwrap_or_default();
            let top = if name == DEFAULT_ACCOUNT { options.adopt.as_slice() } else { &[] };
            TaskAccount {
                adopt: own.adopt.iter().chain(top).cloned().collect(),
                name: name.to_owned(),
                result_subjects: own.result_subjects.unwrap_or_else(|| options.result_subjects.clone()),
                council_subjects: own.council_subjects.unwrap_or_else(|| options.council_subjects.clone()),
            }
        };
        let mut accounts = Vec::new();
        if self.coordinator
            || self.coordinator_options.in_accounts && default.is_some_and(|spec| spec.coordinator.is_some())
        {
            accounts.push(served(DEFAULT_ACCOUNT, default));
        }
        let others = book.accounts().iter().filter(|spec| spec.name != DEFAULT_ACCOUNT);
        let asking = others.filter(|spec| self.coordinator_options.in_accounts && spec.coordinator.is_some());
        // An account's token may ask in vain; the config file may not, see `check_coordinators`.
        let able = asking.filter(|spec| spec.jetstream.is_some() && spec.name != book.system_account());
        accounts.extend(able.map(|spec| served(&spec.name, Some(spec))));
        accounts
    }

    /// # Errors
    /// When a coordinator is to work where no streams are.
    pub(super) fn check_coordinators(&self, book: &Book) -> Result<(), ConfigError> {
        if self.coordinator && !self.jetstream {
            return Err(ConfigError::CoordinatorNeedsJetStream);
        }
        let asking = self.auth.accounts.iter().filter(|spec| spec.coordinator.is_some());
        for spec in asking.filter(|_| self.coordinator_options.in_accounts) {
            let name = spec.name.clone();
            if name == book.system_account() {
                return Err(ConfigError::CoordinatorInSystemAccount(name));
            }
            if !self.jetstream || spec.jetstream.is_none() && name != DEFAULT_ACCOUNT {
                return Err(ConfigError::AccountCoordinatorNeedsJetStream(name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AccountSpec, CoordinatorSpec};
    use crate::types::JetStreamLimits;

    fn account(name: &str, jetstream: bool, coordinator: bool) -> AccountSpec {
        AccountSpec {
            name: name.to_owned(),
            jetstream: jetstream.then(JetStreamLimits::default),
            coordinator: coordinator.then(CoordinatorSpec::default),
            ..AccountSpec::default()
        }
    }

    fn check(accounts: Vec<AccountSpec>, expected: Result<&[&str], &str>) {
        let mut config = Config::in_folder("x");
        config.auth.accounts = accounts;
        let book = Book::new(&config.auth_plan()).unwrap();
        let found = config.check().map(|()| config.task_accounts(&book)).map_err(|error| error.to_string());
        let found = found.map(|accounts| accounts.into_iter().map(|account| account.name).collect::<Vec<_>>());
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn accounts_ask_for_it_and_need_jetstream() {
        check(vec![], Ok(&["$G"]));
        check(vec![account("A", true, true), account("B", true, false)], Ok(&["$G", "A"]));
        check(
            vec![account("A", false, true)],
            Err(
                "account \"A\" keeps no streams, and tasks are kept in streams: add `jetstream: enabled` to it, or take its `coordinator` away",
            ),
        );
        check(
            vec![account("$SYS", true, true)],
            Err("account \"$SYS\" is the server's own: tasks belong into another account, take its `coordinator` away"),
        );
        let mut config = Config { jetstream: false, coordinator: false, ..Config::in_folder("x") };
        config.auth.accounts = vec![account("A", true, true)];
        assert!(matches!(config.check(), Err(ConfigError::AccountCoordinatorNeedsJetStream(_))));
        config.coordinator_options.in_accounts = false;
        config.check().unwrap();
    }
}
