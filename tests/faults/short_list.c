/* The program with a list of parts that is shortened after every few backups instead of every few
 * dozen: built beside it, for test_model.py alone. Everything else is the program's own library,
 * which need not know. */
#include "snapshot/plan.h"
#undef PLAN_LISTED_MAX
#undef PLAN_DROP
#define PLAN_LISTED_MAX 8
#define PLAN_DROP 4
#include "snapshot/plan_consolidate.c"
