/* A libcuda.so.1 with which nothing can be done. */
enum { NO_DEVICE = 100 }; /* CUresult */

int cuInit(unsigned flags);

int cuInit(unsigned flags)
{
    (void)flags;
    return NO_DEVICE;
}
