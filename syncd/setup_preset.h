/* `setup --preset NAME`: a source block for a system that syncd knows, with the literal paths that
 * it has on this machine. */
#ifndef SYNCD_SETUP_PRESET_H
#define SYNCD_SETUP_PRESET_H

struct command_args;
struct err;
struct report;

/* Looks the system's places up (preset_look.h), appends the block to the config - a new one when
 * there is none -, and says what is covered and what is not. With --workers it then enrols the
 * machines of the system's own list, two at most, by the first login's name (enrol.h). A source of
 * the same name and preset is left as it is. ERR_USAGE, ERR_EXISTS (the name is taken), the errors
 * of preset_look, config_file and enrol_url. */
int setup_preset(const struct command_args *args, struct report *report, struct err *e);

#endif
