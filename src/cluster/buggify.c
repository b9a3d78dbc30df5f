#include "buggify.h"

#ifdef BOP_DEBUG
bool (*bop__buggify_hook)(enum buggify_point point);
#else
typedef int bop__buggify_is_off; /* A file must not be empty. */
#endif
