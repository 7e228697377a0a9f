_pipeline_find_self() { _pipeline_self=$BASHPID; }
