/* Debian's unwinder is built for glibc, whose headers make these of fprintf and snprintf; musl has only those. */
#include <stdarg.h>
#include <stdio.h>

int __vfprintf_chk(FILE *file, int flag, const char *format, va_list values) {
    (void)flag;
    return vfprintf(file, format, values);
}

int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int written = __vfprintf_chk(file, flag, format, values);
    va_end(values);
    return written;
}

int __vsnprintf_chk(char *to, size_t most, int flag, size_t size, const char *format, va_list values) {
    (void)flag;
    return vsnprintf(to, size < most ? size : most, format, values);
}

int __snprintf_chk(char *to, size_t most, int flag, size_t size, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int written = __vsnprintf_chk(to, most, flag, size, format, values);
    va_end(values);
    return written;
}
