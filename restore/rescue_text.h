/* The text of rescue.py, which `setup` puts into each repository: whoever has only that folder can
 * read it. */
#ifndef SYNCD_RESTORE_RESCUE_TEXT_H
#define SYNCD_RESTORE_RESCUE_TEXT_H

extern const char rescue_text[], rescue_text_end[]; /* the end is the first byte after it */

#endif
