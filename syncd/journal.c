#include "syncd/journal.h"

#define SD_JOURNAL_SUPPRESS_LOCATION /* ours, not a user's business */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "syncd/base/log.h"

#define FIELD_MAX 2048 /* a line is shorter */

static bool put_line(enum log_level level, const char *line, const char *source, const char *job)
{
    static char room[5][FIELD_MAX]; /* the caller holds the log's lock */
    struct iovec fields[5];
    int n = 0;
    snprintf(room[n++], FIELD_MAX, "MESSAGE=%s", line);
    snprintf(room[n++], FIELD_MAX, "PRIORITY=%d", (int)level);
    snprintf(room[n++], FIELD_MAX, "SYSLOG_IDENTIFIER=syncd");
    if (source && *source)
        snprintf(room[n++], FIELD_MAX, "SYNCD_SOURCE=%s", source);
    if (job && *job)
        snprintf(room[n++], FIELD_MAX, "SYNCD_JOB=%s", job);
    for (int i = 0; i < n; i++)
        fields[i] = (struct iovec){room[i], strlen(room[i])};
    return sd_journal_sendv(fields, n) >= 0;
}

void journal_start(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    uintmax_t device, inode;
    struct stat st;
    if (stream && sscanf(stream, "%ju:%ju", &device, &inode) == 2 &&
        fstat(STDERR_FILENO, &st) == 0 && (uintmax_t)st.st_dev == device &&
        (uintmax_t)st.st_ino == inode)
        log_set_writer(put_line);
}
