/* The kernels for CUDA, compiled when a program runs, and as C by the tests. What comes before this text defines the number
   type T, KERNEL and FOR_EACH. Each kernel gets the number of its threads' items, sizes, numbers, inputs and its output. */

typedef unsigned long long size;

/* Where in its plane the largest value of a window stands, of equal values the first; padding never wins. */
KERNEL void max_pool_places(size n, size d, size h, size w, size od, size oh, size ow, size kd, size kh, size kw, size sd,
                            size sh, size sw, size pd, size ph, size pw, const T *x, unsigned *out) {
    FOR_EACH(i, n) {
        const T *plane = x + i / (od * oh * ow) * (d * h * w);
        size z = i / (oh * ow) % od * sd, y = i / ow % oh * sh, column = i % ow * sw, best = d * h * w;
        for (size a = z; a < z + kd; a++) {
            for (size b = y; b < y + kh; b++) {
                for (size c = column; c < column + kw; c++) {
                    if (a >= pd && a - pd < d && b >= ph && b - ph < h && c >= pw && c - pw < w) {
                        size at = ((a - pd) * h + (b - ph)) * w + (c - pw);
                        if (best == d * h * w || plane[at] > plane[best]) best = at;
                    }
                }
            }
        }
        out[i] = (unsigned)best;
    }
}

/* Values, and then 1 where the gradient passes. */
KERNEL void fixed_point(size n, T delta, T low, T high, const T *x, T *out) {
    FOR_EACH(i, n) {
        T steps = (T)floor((double)(fabs(x[i]) / delta) + 0.5) * delta;
        int above = x[i] > high, below = x[i] < low;
        out[i] = above ? high : below ? low : x[i] < 0 ? -steps : steps;
        out[n + i] = above || below ? (T)0 : (T)1;
    }
}

/* The same for powers of two; is_signed and with_zero are 0 or 1. */
KERNEL void pow2(size n, size is_signed, size with_zero, T low, T high, T zero_below, const T *x, T *out) {
    FOR_EACH(i, n) {
        T modulus = fabs(x[i]), power = (T)exp2((double)round(log2(modulus)));
        int negative = x[i] < 0, cut = power > high;
        T value = cut ? high : power < low ? (with_zero && modulus < zero_below ? (T)0 : low) : power;
        value = negative ? -value : value;
        if (negative && !is_signed) {
            value = with_zero ? (T)0 : low;
            cut = 1;
        }
        out[i] = value;
        out[n + i] = cut ? (T)0 : (T)1;
    }
}

/* What each tap sees at each output of images (images, channels, d, h, w), as (channels, taps, images, outputs). */
KERNEL void unfold(size n, size images, size channels, size d, size h, size w, size od, size oh, size ow, size kd, size kh,
                   size kw, size sd, size sh, size sw, size pd, size ph, size pw, size dd, size dh, size dw, const T *x,
                   T *out) {
    FOR_EACH(i, n) {
        size output = i % (od * oh * ow), rest = i / (od * oh * ow), image = rest % images, tap = rest / images % (kd * kh * kw);
        size c = rest / images / (kd * kh * kw);
        size z = output / (oh * ow) * sd + tap / (kh * kw) * dd, y = output / ow % oh * sh + tap / kw % kh * dh;
        size column = output % ow * sw + tap % kw * dw;
        int inside = z >= pd && z - pd < d && y >= ph && y - ph < h && column >= pw && column - pw < w;
        out[i] = inside ? x[(((image * channels + c) * d + (z - pd)) * h + (y - ph)) * w + (column - pw)] : (T)0;
    }
}

/* The output that sees a place of the padded input at a tap, along one axis with n outputs; n, if there is none. */
INLINE size seen_from(size place, size tap, size dilation, size stride, size n) {
    size start = place - tap * dilation;
    return tap * dilation <= place && start % stride == 0 && start / stride < n ? start / stride : n;
}

/* The transpose of unfold: each input gets the sum of what was taken from it. */
KERNEL void fold(size n, size images, size channels, size d, size h, size w, size od, size oh, size ow, size kd, size kh,
                 size kw, size sd, size sh, size sw, size pd, size ph, size pw, size dd, size dh, size dw, const T *x, T *out) {
    FOR_EACH(i, n) {
        size image = i / (d * h * w * channels), c = i / (d * h * w) % channels;
        size z = i / (h * w) % d + pd, y = i / w % h + ph, column = i % w + pw;
        const T *columns = x + c * (kd * kh * kw * images * od * oh * ow) + image * (od * oh * ow);
        T sum = 0;
        for (size a = 0; a < kd; a++) {
            size oz = seen_from(z, a, dd, sd, od);
            if (oz == od) continue;
            for (size b = 0; b < kh; b++) {
                size oy = seen_from(y, b, dh, sh, oh);
                if (oy == oh) continue;
                for (size e = 0; e < kw; e++) {
                    size ox = seen_from(column, e, dw, sw, ow);
                    if (ox == ow) continue;
                    sum += columns[((a * kh + b) * kw + e) * (images * od * oh * ow) + (oz * oh + oy) * ow + ox];
                }
            }
        }
        out[i] = sum;
    }
}

/* The convolution of each channel with m kernels of its own, (images, channels m, outputs). */
KERNEL void depthwise(size n, size channels, size m, size d, size h, size w, size od, size oh, size ow, size kd, size kh, size kw,
                      size sd, size sh, size sw, size pd, size ph, size pw, size dd, size dh, size dw, const T *x,
                      const T *weights, T *out) {
    FOR_EACH(i, n) {
        size output = i % (od * oh * ow), map = i / (od * oh * ow), kernel = map % (channels * m);
        const T *plane = x + map / m * (d * h * w), *taps = weights + kernel * (kd * kh * kw);
        size z = output / (oh * ow) * sd, y = output / ow % oh * sh, column = output % ow * sw;
        T sum = 0;
        for (size a = 0; a < kd; a++) {
            size in_z = z + a * dd - pd;
            if (in_z >= d) continue;
            for (size b = 0; b < kh; b++) {
                size in_y = y + b * dh - ph;
                if (in_y >= h) continue;
                for (size e = 0; e < kw; e++) {
                    size in_x = column + e * dw - pw;
                    if (in_x < w) sum += plane[(in_z * h + in_y) * w + in_x] * taps[(a * kh + b) * kw + e];
                }
            }
        }
        out[i] = sum;
    }
}

/* The gradient of its input, (images, channels, inputs), from that of its outputs. */
KERNEL void depthwise_data(size n, size channels, size m, size d, size h, size w, size od, size oh, size ow, size kd, size kh,
                           size kw, size sd, size sh, size sw, size pd, size ph, size pw, size dd, size dh, size dw,
                           const T *dy, const T *weights, T *out) {
    FOR_EACH(i, n) {
        size map = i / (d * h * w), z = i / (h * w) % d + pd, y = i / w % h + ph, column = i % w + pw;
        T sum = 0;
        for (size kernel = 0; kernel < m; kernel++) {
            const T *plane = dy + (map * m + kernel) * (od * oh * ow);
            const T *taps = weights + (map % channels * m + kernel) * (kd * kh * kw);
            for (size a = 0; a < kd; a++) {
                size oz = seen_from(z, a, dd, sd, od);
                if (oz == od) continue;
                for (size b = 0; b < kh; b++) {
                    size oy = seen_from(y, b, dh, sh, oh);
                    if (oy == oh) continue;
                    for (size e = 0; e < kw; e++) {
                        size ox = seen_from(column, e, dw, sw, ow);
                        if (ox == ow) continue;
                        sum += plane[(oz * oh + oy) * ow + ox] * taps[(a * kh + b) * kw + e];
                    }
                }
            }
        }
        out[i] = sum;
    }
}

/* What each row of outputs adds to the gradient of the kernels, (images, channels m, rows, taps). */
KERNEL void depthwise_weights(size n, size channels, size m, size d, size h, size w, size od, size oh, size ow, size kd, size kh,
                              size kw, size sd, size sh, size sw, size pd, size ph, size pw, size dd, size dh, size dw,
                              const T *x, const T *dy, T *out) {
    FOR_EACH(i, n) {
        size tap = i % (kd * kh * kw), row = i / (kd * kh * kw), map = row / (od * oh);
        size z = row / oh % od * sd + tap / (kh * kw) * dd - pd, y = row % oh * sh + tap / kw % kh * dh - ph;
        size before = tap % kw * dw - pw;
        T sum = 0;
        if (z < d && y < h) {
            const T *inputs = x + ((map / m * d + z) * h + y) * w, *slopes = dy + row * ow;
            for (size column = 0; column < ow; column++) {
                size at = column * sw + before;
                if (at < w) sum += inputs[at] * slopes[column];
            }
        }
        out[i] = sum;
    }
}

/* The largest |x| of every n-th element; infinity, if one is not a number. */
KERNEL void largest(size n, size len, T infinity, const T *x, T *out) {
    FOR_EACH(i, n) {
        T top = 0;
        for (size k = i; k < len; k += n) {
            T modulus = fabs(x[k]);
            if (!(modulus <= infinity)) modulus = infinity;
            if (modulus > top) top = modulus;
        }
        out[i] = top;
    }
}
