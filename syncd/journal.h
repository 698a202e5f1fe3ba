/* Log lines with fields, where stderr is systemd's journal: PRIORITY, SYSLOG_IDENTIFIER, and of
 * what a line is about SYNCD_SOURCE and SYNCD_JOB. */
#ifndef SYNCD_JOURNAL_H
#define SYNCD_JOURNAL_H

/* From now on, if $JOURNAL_STREAM names our stderr; else nothing changes. */
void journal_start(void);

#endif
