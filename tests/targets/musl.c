/* Debian's unwinder is built for glibc, whose headers make this of fprintf; musl has only fprintf. */
#include <stdarg.h>
#include <stdio.h>

int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
    va_list values;
    (void)flag;
    va_start(values, format);
    int written = vfprintf(file, format, values);
    va_end(values);
    return written;
}
