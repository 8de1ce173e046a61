/* The kernel's side of a V4L2 camera, for LD_PRELOAD: whatever opens $FAKE_V4L2_DEVICE talks to this.
 *
 * It answers the ioctls of a UVC webcam (MJPG and YUYV, memory-mapped buffers, exposure and white balance).
 * The process that runs over it drives it through the functions fake_*. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BUFFERS 4
#define BUFFER_BYTES (1 << 20)
#define WAIT_MS 50

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int device = -1, streaming, unplugged, blocked, only_width, only_height;
static unsigned width = 640, height = 480, format = V4L2_PIX_FMT_YUYV;
static int queued[BUFFERS], first_queued, queue_length;
static char *memory;
static char *frame;
static unsigned frame_bytes, frame_number;
static long long stamp_us;
static int exposure_auto = 3, exposure = 156, white_balance_auto = 1, white_balance = 4000;

/* --- what the test does to the camera --- */

void fake_push(const char *bytes, unsigned count, long long us) {
    pthread_mutex_lock(&lock);
    free(frame);
    frame = memcpy(malloc(count), bytes, count);
    frame_bytes = count;
    stamp_us = us;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

int fake_taken(void) { return frame == NULL; }
void fake_unplug(int now) { unplugged = now; }
void fake_block(int now) { blocked = now; }
void fake_only_size(int w, int h) { only_width = w; only_height = h; }
int fake_is_open(void) { return device >= 0; }
unsigned fake_format(void) { return format; }
int fake_exposure(void) { return exposure_auto == 1 ? exposure : -1; }
int fake_white_balance(void) { return white_balance_auto ? -1 : white_balance; }

/* --- the system calls --- */

static int is_ours(const char *path) {
    const char *name = getenv("FAKE_V4L2_DEVICE");
    return name && path && !strcmp(name, path);
}

static int open_device(void) {
    if (unplugged || access(getenv("FAKE_V4L2_DEVICE"), F_OK)) { errno = ENODEV; return -1; }
    if (device >= 0) { errno = EBUSY; return -1; }
    device = memfd_create("fake_v4l2", 0);
    if (ftruncate(device, BUFFERS * BUFFER_BYTES)) return -1;
    memory = mmap(NULL, BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
    streaming = queue_length = 0;
    return device;
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...) {                                    \
        va_list rest;                                                               \
        va_start(rest, flags);                                                      \
        mode_t mode = va_arg(rest, mode_t);                                         \
        va_end(rest);                                                               \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);              \
        return is_ours(path) ? open_device() : real(path, flags, mode);             \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "close");
    if (fd >= 0 && fd == device) {
        munmap(memory, BUFFERS * BUFFER_BYTES);
        device = -1;
    }
    return real(fd);
}

static int fail(int code) { errno = code; return -1; }

static int set_format(struct v4l2_pix_format *pix) {
    if (pix->pixelformat != V4L2_PIX_FMT_MJPEG && pix->pixelformat != V4L2_PIX_FMT_YUYV) return fail(EINVAL);
    format = pix->pixelformat;
    width = only_width ? only_width : pix->width;
    height = only_height ? only_height : pix->height;
    return 0;
}

static void fill_format(struct v4l2_pix_format *pix) {
    memset(pix, 0, sizeof *pix);
    pix->width = width; pix->height = height; pix->pixelformat = format; pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = format == V4L2_PIX_FMT_YUYV ? 2 * width : 0;
    pix->sizeimage = BUFFER_BYTES;
}

static int dequeue(struct v4l2_buffer *buffer) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) { until.tv_sec++; until.tv_nsec -= 1000000000L; }
    pthread_mutex_lock(&lock);
    while (!unplugged && (blocked || !frame || !queue_length))
        if (pthread_cond_timedwait(&changed, &lock, &until) == ETIMEDOUT) break;
    int code = unplugged ? ENODEV : blocked || !frame || !queue_length ? EAGAIN : 0;
    if (!code) {
        int index = queued[first_queued];
        first_queued = (first_queued + 1) % BUFFERS;
        queue_length--;
        memcpy(memory + index * BUFFER_BYTES, frame, frame_bytes);
        free(frame);
        frame = NULL;
        buffer->index = index;
        buffer->bytesused = frame_bytes;
        buffer->sequence = frame_number++;
        buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        buffer->timestamp.tv_sec = stamp_us / 1000000;
        buffer->timestamp.tv_usec = stamp_us % 1000000;
        buffer->length = BUFFER_BYTES;
        buffer->m.offset = index * BUFFER_BYTES;
    }
    pthread_mutex_unlock(&lock);
    return code ? fail(code) : 0;
}

static int *control(unsigned id) {
    switch (id) {
        case V4L2_CID_EXPOSURE_AUTO: return &exposure_auto;
        case V4L2_CID_EXPOSURE_ABSOLUTE: return &exposure;
        case V4L2_CID_AUTO_WHITE_BALANCE: return &white_balance_auto;
        case V4L2_CID_WHITE_BALANCE_TEMPERATURE: return &white_balance;
    }
    return NULL;
}

static int in_range(unsigned id, int value) {
    if (id == V4L2_CID_EXPOSURE_ABSOLUTE) return value >= 1 && value <= 5000;
    if (id == V4L2_CID_WHITE_BALANCE_TEMPERATURE) return value >= 2000 && value <= 6500;
    return 1;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    if (fd < 0 || fd != device) return real(fd, request, argument);
    if (unplugged) return fail(ENODEV);
    struct v4l2_buffer *buffer = argument;
    switch ((unsigned)request) {
        case (unsigned)VIDIOC_QUERYCAP: {
            struct v4l2_capability *capability = argument;
            memset(capability, 0, sizeof *capability);
            strcpy((char *)capability->driver, "uvcvideo");
            strcpy((char *)capability->card, "Fake Webcam");
            capability->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_DEVICE_CAPS;
            capability->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
            return 0;
        }
        case (unsigned)VIDIOC_G_INPUT: *(int *)argument = 0; return 0;
        case (unsigned)VIDIOC_S_INPUT: return 0;
        case (unsigned)VIDIOC_ENUMINPUT: return ((struct v4l2_input *)argument)->index ? fail(EINVAL) : 0;
        case (unsigned)VIDIOC_G_FMT: fill_format(&((struct v4l2_format *)argument)->fmt.pix); return 0;
        case (unsigned)VIDIOC_TRY_FMT:
        case (unsigned)VIDIOC_S_FMT:
            if (set_format(&((struct v4l2_format *)argument)->fmt.pix)) return -1;
            fill_format(&((struct v4l2_format *)argument)->fmt.pix);
            return 0;
        case (unsigned)VIDIOC_G_PARM:
        case (unsigned)VIDIOC_S_PARM: {
            struct v4l2_streamparm *parameters = argument;
            parameters->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
            parameters->parm.capture.timeperframe.numerator = 1;
            parameters->parm.capture.timeperframe.denominator = 30;
            return 0;
        }
        case (unsigned)VIDIOC_REQBUFS: {
            struct v4l2_requestbuffers *wanted = argument;
            if (wanted->count > BUFFERS) wanted->count = BUFFERS;
            queue_length = first_queued = 0;
            return 0;
        }
        case (unsigned)VIDIOC_QUERYBUF:
            buffer->length = BUFFER_BYTES;
            buffer->m.offset = buffer->index * BUFFER_BYTES;
            return 0;
        case (unsigned)VIDIOC_QBUF:
            queued[(first_queued + queue_length++) % BUFFERS] = buffer->index;
            return 0;
        case (unsigned)VIDIOC_DQBUF: return dequeue(buffer);
        case (unsigned)VIDIOC_STREAMON: streaming = 1; return 0;
        case (unsigned)VIDIOC_STREAMOFF: streaming = queue_length = 0; return 0;
        case (unsigned)VIDIOC_QUERYCTRL: {
            struct v4l2_queryctrl *query = argument;
            return control(query->id) ? 0 : fail(EINVAL);
        }
        case (unsigned)VIDIOC_G_CTRL: {
            struct v4l2_control *wanted = argument;
            if (!control(wanted->id)) return fail(EINVAL);
            wanted->value = *control(wanted->id);
            return 0;
        }
        case (unsigned)VIDIOC_S_CTRL: {
            struct v4l2_control *wanted = argument;
            if (!control(wanted->id)) return fail(EINVAL);
            if (!in_range(wanted->id, wanted->value)) return fail(ERANGE);
            *control(wanted->id) = wanted->value;
            return 0;
        }
    }
    return fail(ENOTTY);
}
