/* The prelude of the cffi module: these are its cdef as well. */
#include <stddef.h>
#include <stdint.h>

#include "compare.h"
#include "message.h"
