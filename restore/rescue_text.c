#include "restore/rescue_text.h"

/* The file as it is, taken in by the assembler. */
__asm__(".section .rodata\n"
        ".global rescue_text\n"
        ".global rescue_text_end\n"
        "rescue_text:\n"
        ".incbin \"" RESCUE_FILE "\"\n"
        "rescue_text_end:\n"
        ".byte 0\n"
        ".previous\n");
