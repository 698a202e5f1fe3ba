/* The tables of commands and options. To add a command: write cmd_<name>.c, declare its function
 * below, and put it into its row instead of NULL. */
#include "syncd/command.h"
#include "syncd/commands.h"

#define END_OF_OPTIONS                                                                             \
    {                                                                                              \
        .name = NULL                                                                               \
    }

const struct command_option global_options[] = {
    {"config", 'c', OPTION_VALUE, "FILE",
     "The config file. Otherwise $SYNCD_CONFIG, or else /etc/syncd/syncd.conf."},
    {"json", 0, OPTION_FLAG, NULL, "Print one JSON object on stdout; no progress, no messages."},
    {"quiet", 'q', OPTION_FLAG, NULL, "Only warnings and errors; no progress."},
    {"verbose", 'v', OPTION_FLAG, NULL, "Tell more; twice: everything."},
    {"yes", 0, OPTION_FLAG, NULL,
     "Answer every question with yes, except for host keys, leading and foreign hooks."},
    {"help", 'h', OPTION_FLAG, NULL, "Show this help."},
    {"version", 0, OPTION_FLAG, NULL, "Show the version."},
    END_OF_OPTIONS,
};

/* How to reach a worker that no config names. */
#define OPTION_HOST_KEY                                                                            \
    {                                                                                              \
        "host-key", 0, OPTION_VALUES, "[HOST=]SHA256:...",                                         \
            "Trust the worker that shows this host key. May be given for each host."               \
    }
#define OPTION_PASSWORD_FILE                                                                       \
    {                                                                                              \
        "password-file", 0, OPTION_VALUE, "FILE",                                                  \
            "Read the login's password from this file, which nobody else may read."                \
    }
#define OPTION_IDENTITY                                                                            \
    {                                                                                              \
        "identity", 0, OPTION_VALUE, "FILE", "Log in with this private key (ed25519 or ECDSA)."    \
    }
#define OPTION_FROM                                                                                \
    {                                                                                              \
        "from", 0, OPTION_VALUES, "URL|WORKER",                                                    \
            "Read from this repository; twice: from both as one. A URL needs no config; one "      \
            "without a path lists the repositories that are there."                                \
    }

static const struct command_option no_options[] = {END_OF_OPTIONS};

static const struct command_option setup_options[] = {
    {"name", 0, OPTION_VALUE, "TITLE", "How to call the worker (else its host's name)."},
    OPTION_HOST_KEY,
    OPTION_PASSWORD_FILE,
    {"identity", 0, OPTION_VALUE, "FILE",
     "The private key that will log in from now on; it is made when it is missing."},
    {"preset", 0, OPTION_VALUE, "NAME",
     "Write a source for pioreactor, piri or bacalhau into the config, with the paths that it has "
     "on this machine."},
    {"source", 0, OPTION_VALUE, "NAME", "How to call that source (else as the preset)."},
    {"secrets", 0, OPTION_FLAG, NULL, "Take the system's private keys too, with --preset."},
    {"workers", 0, OPTION_FLAG, NULL,
     "Enrol the workers that Pioreactor's own config.ini names, two at most, with --preset."},
    END_OF_OPTIONS,
};

static const struct command_option adopt_options[] = {
    {"lead", 0, OPTION_FLAG, NULL, "Answer the question with yes (--yes does not)."},
    END_OF_OPTIONS,
};

static const struct command_option restore_options[] = {
    {"snapshot", 0, OPTION_VALUE, "ID", "Which snapshot: its first 6 or more digits, or latest."},
    {"at", 0, OPTION_VALUE, "TIME",
     "The newest snapshot not later than 2026-11-20, \"2026-11-20 14:00\" (or with Z, or +01:00), "
     "or \"3 days ago\" (minutes, hours, days, weeks)."},
    {"path", 0, OPTION_VALUES, "GLOB", "Only entries whose path matches. May be repeated."},
    {"target", 0, OPTION_VALUE, "DIR",
     "Put each entry into DIR, at DIR/<its absolute path>. Nothing else is touched."},
    {"in-place", 0, OPTION_FLAG, NULL,
     "Put each entry back to where it was. What is there now goes to .syncd-restore/<UTC>/old/, "
     "nothing is deleted."},
    {"output", 0, OPTION_VALUE, "FILE|-", "Write the one entry to FILE, or to stdout."},
    {"to", 0, OPTION_VALUE, "CONNINFO",
     "Restore a PostgreSQL dump in one transaction into an empty database, or, by way of "
     "dbname=postgres, into one that is created as it was. --path SCHEMA takes one schema alone."},
    {"overwrite", 0, OPTION_FLAG, NULL,
     "With --to: what is in the way in a database that is not empty is dropped."},
    {"dry-run", 0, OPTION_FLAG, NULL, "Say what would be done, and do nothing."},
    {"keep-special", 0, OPTION_FLAG, NULL, "Give files their setuid and setgid bits back."},
    {"paranoid", 0, OPTION_FLAG, NULL,
     "Fetch everything, also what is there already by its digests and sums."},
    {"run-hooks", 0, OPTION_FLAG, NULL,
     "Trust the commands in the repository's config (--yes does not). Without it they are only "
     "shown."},
    {"salvage", 0, OPTION_FLAG, NULL,
     "Accept that blocks are missing, and list what is lost (with --target or --output)."},
    OPTION_FROM,
    {"lead", 0, OPTION_FLAG, NULL,
     "After a rebuild: this machine is the leader from now on (--yes does not say so)."},
    OPTION_HOST_KEY,
    OPTION_PASSWORD_FILE,
    OPTION_IDENTITY,
    END_OF_OPTIONS,
};

static const struct command_option verify_options[] = {
    {"read-data", 0, OPTION_VALUE_OPTIONAL, "PERCENT",
     "Read every block and check its digest; with a number, that share of them, longest unread "
     "first."},
    {"drill", 0, OPTION_FLAG, NULL,
     "Prove of each worker that its newest snapshot comes back whole."},
    END_OF_OPTIONS,
};

static const struct command_option prune_options[] = {
    {"dry-run", 0, OPTION_FLAG, NULL, "Only show each decision with its reason."},
    END_OF_OPTIONS,
};

static const struct command_option status_options[] = {
    {"from", 0, OPTION_VALUES, "URL",
     "Ask this repository, without config or leader. May be repeated."},
    {"nagios", 0, OPTION_FLAG, NULL, "One line and an exit code for Nagios and its kin."},
    {"prometheus", 0, OPTION_FLAG, NULL, "Metrics in Prometheus' text format."},
    OPTION_HOST_KEY,
    OPTION_PASSWORD_FILE,
    OPTION_IDENTITY,
    END_OF_OPTIONS,
};

#define OPTION_SOURCE                                                                              \
    {                                                                                              \
        "source", 0, OPTION_VALUE, "NAME", "Whose `latest` is meant, where there are several."     \
    }

static const struct command_option inspect_options[] = {
    {"format", 0, OPTION_VALUE, "table|csv|json",
     "How `sql` prints rows. (--json gives them as part of the one object.)"},
    {"file", 0, OPTION_VALUE, "PATH",
     "Ask a live file of this machine, without config or workers."},
    {"output", 'o', OPTION_VALUE, "FILE", "Where `compact` writes to; it must not exist."},
    {"hex", 0, OPTION_FLAG, NULL, "Keys and values of bolt are hex digits, in words and answers."},
    {"count", 0, OPTION_FLAG, NULL, "`tables` counts their rows, which may read much."},
    OPTION_SOURCE,
    OPTION_FROM,
    OPTION_HOST_KEY,
    OPTION_PASSWORD_FILE,
    OPTION_IDENTITY,
    END_OF_OPTIONS,
};

static const struct command_option diff_options[] = {
    {"entries", 0, OPTION_FLAG, NULL, "Only entries; do not look into databases."},
    OPTION_SOURCE,
    OPTION_FROM,
    OPTION_HOST_KEY,
    OPTION_PASSWORD_FILE,
    OPTION_IDENTITY,
    END_OF_OPTIONS,
};

const struct command command_table[] = {
    {
        .name = "setup",
        .run = cmd_setup,
        .arguments = "[URL]",
        .max_words = 1,
        .options = setup_options,
        .stays_root = true,
        .summary = "Prepare workers; with URL, enrol one; with --preset, write a source.",
        .details =
            "With URL: shows and pins the worker's host key, asks once for the password, makes a "
            "key that may do nothing but SFTP there, creates the repository and writes the "
            "worker into the config. The worker needs sshd and nothing else.\n\n"
            "Without URL: creates the repository on each configured worker that has none.\n\n"
            "A URL is sftp://[user@]host[:port]/path, with /~/path for a path under the login's "
            "home, or file:///path.\n\n"
            "With --preset: looks up where the system keeps its files here (PIRI_REPO_DATA_DIR, "
            "BACALHAU_DIR, BACALHAU_JOB_STORE_PATH, BACALHAU_COMPUTE_STORE_PATH, DOT_PIOREACTOR, "
            "its own config, its usual place), writes a source with these paths, and says what is "
            "left out.",
        .examples = "  syncd setup sftp://pioreactor@worker1.local/~/syncd/leader\n"
                    "  syncd setup --preset pioreactor --workers\n"
                    "  PIRI_REPO_DATA_DIR=/data/piri syncd setup --preset piri\n",
    },
    {
        .name = "check",
        .run = cmd_check,
        .arguments = "",
        .options = no_options,
        .summary = "Find everything that would fail tonight.",
        .details = "Checks config, keys, host keys, the workers' space and abilities, the sources, "
                   "their owners and the clock. Exits with 0 when nothing would fail, 3 when "
                   "there are only warnings.",
        .examples = "",
    },
    {
        .name = "backup",
        .run = cmd_backup,
        .arguments = "[SOURCE...]",
        .max_words = COMMAND_WORDS_MAX,
        .options = no_options,
        .is_quiet = true,
        .summary = "Take snapshots and ship them now.",
        .details = "Takes a snapshot of each named source, or of all, and stores it on every "
                   "worker that answers. Exits with 0 when every source is complete on every "
                   "worker, 3 when a worker, a source or an entry is missing.",
        .examples = "",
    },
    {
        .name = "snapshots",
        .run = cmd_snapshots,
        .arguments = "[SOURCE]",
        .max_words = 1,
        .options = no_options,
        .summary = "List the snapshots that the workers hold.",
        .details = "For each: id, time, size, new bytes, whether it is complete, on which workers "
                   "it is, and when it was last proven.",
        .examples = "",
    },
    {
        .name = "restore",
        .run = cmd_restore,
        .arguments = "[SOURCE]",
        .max_words = 1,
        .options = restore_options,
        .stays_root = true,
        .summary = "Bring a snapshot back.",
        .details =
            "Brings back the latest snapshot, or the one of --snapshot or --at, to where --target, "
            "--output, --in-place or --to says: one of them is needed. Everything is checked "
            "before it gets its name. Nothing that is there already is touched, except that "
            "--in-place sets it aside and --overwrite drops it.\n\n"
            "With --from URL it needs no config: it shows the worker's host key and asks, and logs "
            "in with --identity, a key of the agent, or the password.\n\n"
            "With --from URL alone it rebuilds a leader: it shows what the repository holds, "
            "brings "
            "every source back to where it was, and asks whether this machine leads from now on; "
            "then it adds a key of its own on the workers, writes the config that was kept with "
            "the snapshots, and backs up once.",
        .examples =
            "  syncd restore --from sftp://pi@worker1.local --from sftp://pi@worker2.local\n"
            "  syncd restore piri --target /tmp/look\n"
            "  syncd restore piri --to \"host=/run/postgresql dbname=postgres\"\n"
            "  syncd restore piri --from sftp://pi@worker1.local --target /tmp/look\n"
            "  syncd restore lab --at \"2 days ago\" --output lab.sqlite\n",
    },
    {
        .name = "verify",
        .run = cmd_verify,
        .arguments = "[SOURCE]",
        .max_words = 1,
        .options = verify_options,
        .summary = "Check what the workers hold.",
        .details = "Without options: every part is there, has its size, and its metadata is whole. "
                   "With --drill each worker's newest snapshot is put together and checked as a "
                   "restore would, and the databases are checked by their own rules in scratch_dir "
                   "when that is set and large enough. "
                   "Exits with 3 for damage that `sync` can mend or a worker that was not reached, "
                   "1 for damage that no worker can mend.",
        .examples = "",
    },
    {
        .name = "sync",
        .run = cmd_sync,
        .arguments = "",
        .options = no_options,
        .summary = "Make the workers hold the same; mend damage.",
        .details = "Copies what one worker has and the other lacks, and replaces damaged or "
                   "missing files by the other's.",
        .examples = "",
    },
    {
        .name = "prune",
        .run = cmd_prune,
        .arguments = "",
        .options = prune_options,
        .summary = "Let go what retention does not keep.",
        .details = "Shows each decision with its reason. A worker's newest complete snapshot "
                   "always stays.",
        .examples = "",
    },
    {
        .name = "status",
        .run = cmd_status,
        .arguments = "",
        .options = status_options,
        .summary = "Show how fresh each source is on each worker.",
        .details = "Exits with 0 when all is fresh, 3 when a source is degraded, 4 when one is "
                   "stale or was never stored, 1 when it cannot tell. With --nagios: 0, 1, 2 "
                   "and 3 as Nagios understands them.",
        .examples = "",
    },
    {
        .name = "inspect",
        .run = cmd_inspect,
        .arguments = "(SNAPSHOT [PATH] | --file PATH) [QUESTION...]",
        .max_words = COMMAND_WORDS_MAX,
        .options = inspect_options,
        .summary = "Look inside a stored, or a live local, database.",
        .details =
            "Reads a database where it lies, on the worker: only the blocks that the question "
            "needs are fetched and checked, and nothing is restored. SNAPSHOT is an id or "
            "`latest`; PATH may be left out where the snapshot holds one database, and may be the "
            "end of a path. Without a question, the databases are listed.\n\n"
            "SQLite: `tables` lists tables and their columns; with --count, their rows too. `sql "
            "\"SELECT ...\"` runs one statement that only reads.\n\n"
            "bolt: `check`, `buckets`, `keys BUCKET...`, `get BUCKET... KEY`, `stats [PREFIX]` and "
            "`compact -o FILE` print what bbolt prints. With --file they take no lock, so they "
            "answer where bbolt would wait for the owner.\n\n"
            "PostgreSQL: `tables`, with the rows that were counted while the dump was taken.",
        .examples = "  syncd inspect latest tables\n"
                    "  syncd inspect 3f9a01c4d2be lab.sqlite sql \"SELECT count(*) FROM od\"\n"
                    "  syncd inspect --file state_boltdb.db keys jobs\n",
    },
    {
        .name = "diff",
        .run = cmd_diff,
        .arguments = "SNAPSHOT SNAPSHOT [PATH]",
        .min_words = 2,
        .max_words = 3,
        .options = diff_options,
        .summary = "Show what changed between two snapshots.",
        .details =
            "Lists what was added, removed and changed from the first snapshot to the second: "
            "size, content, mode, owner, mtime (but not of folders). Of SQLite databases: rows "
            "inserted, updated and deleted, by table; of bolt: keys added, removed and changed, by "
            "bucket; of PostgreSQL the numbers of rows, by table. For the first two both databases "
            "are read where they lie, what they share only once; "
            "--entries leaves them out. PATH: only that entry, or what is below that folder.",
        .examples = "  syncd diff 3f9a01c4d2be latest\n",
    },
    {
        .name = "adopt",
        .run = cmd_adopt,
        .arguments = "",
        .options = adopt_options,
        .summary = "Lead a repository that another machine wrote.",
        .details = "Shows what the workers hold and asks. From then on the old leader refuses to "
                   "write there; what it still wrote where it could not know is never taken for "
                   "the latest. A worker that is away learns of it at the next backup.",
        .examples = "",
    },
    {
        .name = "run",
        .run = cmd_run,
        .arguments = "",
        .options = no_options,
        .summary = "Be the daemon, in the foreground.",
        .details =
            "Keeps the schedule of each source, verifies, drills and prunes, and with an `mqtt` "
            "section publishes the states over MQTT.",
        .examples = "",
    },
    {.name = NULL},
};
