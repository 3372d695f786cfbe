/* Owns the threads that help with a run: woken for it, asleep between; knows not what is computed. */
#ifndef QA_POOL_H
#define QA_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t called, left;
    void (*work)(void *);
    void *task; /* of the call under way, or NULL */
    unsigned long calls;
    int taken;  /* by a call, from its start until its helpers have left */
    int inside; /* helpers at work for it */
    int helpers;
} Pool;

static void *help(void *given) {
    Pool *pool = given;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->task || pool->calls == seen) pthread_cond_wait(&pool->called, &pool->lock);
        seen = pool->calls;
        pool->inside++;
        void (*work)(void *) = pool->work;
        void *task = pool->task;
        pthread_mutex_unlock(&pool->lock);
        work(task);
        pthread_mutex_lock(&pool->lock);
        if (!--pool->inside) pthread_cond_signal(&pool->left);
    }
    return NULL;
}

static Pool *pool_new(int helpers) {
    Pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->called, NULL);
    pthread_cond_init(&pool->left, NULL);
    for (; pool->helpers < helpers; pool->helpers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, pool)) break;
        pthread_detach(thread);
    }
    return pool;
}

/* Call `work(task)` here and in as many helpers as wake in time; returns when all of them have left.
 * Where another call has the helpers, this one works alone. */
static void pool_call(Pool *pool, void (*work)(void *), void *task) {
    int ours = 0;
    pthread_mutex_lock(&pool->lock);
    if (!pool->taken) {
        pool->taken = 1;
        pool->task = task;
        pool->work = work;
        pool->calls++;
        ours = 1;
        pthread_cond_broadcast(&pool->called);
    }
    pthread_mutex_unlock(&pool->lock);
    work(task);
    if (!ours) return;
    pthread_mutex_lock(&pool->lock);
    pool->task = NULL; /* who wakes only now sleeps on */
    while (pool->inside) pthread_cond_wait(&pool->left, &pool->lock);
    pool->taken = 0;
    pthread_mutex_unlock(&pool->lock);
}

#endif
