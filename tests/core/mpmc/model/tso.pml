/*
 * Memory as x86 processors have it (total store order), for the models that
 * include this: each process has a buffer of stores that the others do not see
 * yet. They reach memory one by one, in their order, at any time. The process
 * itself sees its own.
 *
 * Before including it, define
 *      WORDS       words of memory
 *      PROCESSES   that store
 *      DEPTH       stores that a buffer holds
 * and run flusher().
 *
 * A read-modify-write (lock prefix) waits for the buffer of its process to be
 * empty and happens in memory: atomic { drained(me); mem[X] = ... }.
 *
 * The rare fence is membarrier(2): it waits for the buffer of its caller, then
 * each process has an empty buffer at some moment before it ends. (Were the
 * caller not first, the others' moments would come too early.) The hot fence
 * orders the compiler only, and so is nothing here.
 */
typedef buffer {
    byte word[DEPTH];
    byte value[DEPTH];
    byte count
};

byte mem[WORDS];
buffer stores[PROCESSES];
hidden byte tso_i;

inline load(p_, w_, v_)
{
    d_step {
        v_ = mem[w_];
        tso_i = 0;
        do
        :: tso_i < stores[p_].count ->
            if
            :: stores[p_].word[tso_i] == w_ -> v_ = stores[p_].value[tso_i]
            :: else
            fi;
            tso_i++
        :: else -> break
        od;
        tso_i = 0
    }
}

inline store(p_, w_, v_)
{
    d_step {
        stores[p_].count < DEPTH;
        stores[p_].word[stores[p_].count] = w_;
        stores[p_].value[stores[p_].count] = v_;
        stores[p_].count++
    }
}

#define drained(me) (stores[me].count == 0)

inline flush_one(who)
{
    d_step {
        stores[who].count > 0;
        mem[stores[who].word[0]] = stores[who].value[0];
        stores[who].count--;
        tso_i = 0;
        do
        :: tso_i < stores[who].count ->
            stores[who].word[tso_i] = stores[who].word[tso_i + 1];
            stores[who].value[tso_i] = stores[who].value[tso_i + 1];
            tso_i++
        :: else ->
            stores[who].word[tso_i] = 0;
            stores[who].value[tso_i] = 0;
            break
        od;
        tso_i = 0
    }
}

/* One for each process that stores. */
proctype flusher(byte who)
{
end:
    do
    :: flush_one(who)
    od
}

/* i is a byte of the caller's. */
inline rare_fence(me, i)
{
    drained(me);
    i = 0;
    do
    :: i < PROCESSES -> drained(i); i++
    :: else -> break
    od;
    i = 0
}
